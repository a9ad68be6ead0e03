"""Refuse what the ``peft`` library builds without computing what its settings and layers say."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shipbench.errors import InputError, one_line

from .peft_library import Variant


def refusing(work: Callable[[], Any], what: str) -> Any:
    """Return ``work()``; raise ``InputError`` with the library's reason for an error in it."""
    try:
        return work()
    except (ValueError, TypeError, RuntimeError, AttributeError, AssertionError, ArithmeticError, LookupError) as error:
        raise InputError(f"{what}: {one_line(error)}") from error


def refuse_unfit_layers(variant: Variant, model: nn.Module, layers: Sequence[str]) -> None:
    """Raise ``InputError`` for layers that the tuner has left as they are, or on which it computes something else."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name in layers:
        layer: Any = model.get_submodule(name)
        adapted = isinstance(layer, BaseTunerLayer)
        if not adapted:
            raise InputError(f"{variant.method} leaves {name} as it is; name other layers in target_modules")
        if isinstance(layer.get_base_layer(), nn.Conv2d):
            _refuse_another_convolution(variant, name, copy.deepcopy(layer).eval())


@torch.no_grad()
def _refuse_another_convolution(variant: Variant, name: str, layer: Any) -> None:
    """Raise ``InputError`` unless ``layer`` computes the convolution with the weights into which it merges.

    Some tuners ignore the padding or dilation of a convolution, or rotate overlapping patches of its input as if they
    lay apart.
    """
    images = _images_for(layer.get_base_layer())
    before = refusing(lambda: layer(images), f"{variant.method} does not fit {name}")
    try:
        layer.merge()
    except RuntimeError:
        # What cannot be merged, as a bias into a layer without one, says so when it is exported.
        return
    after = layer(images)
    if before.shape != after.shape or not torch.allclose(before, after, rtol=1e-3, atol=1e-3):
        raise InputError(
            f"{variant.method} computes something else than a convolution with changed weights in {name}; name other "
            "layers in target_modules"
        )


def _images_for(convolution: nn.Conv2d) -> Tensor:
    """Return an input (1, channels, H, W) in which a kernel has more than one place."""
    sides = zip(convolution.kernel_size, convolution.dilation, strict=True)
    weight = convolution.weight
    shape = (1, convolution.in_channels, *(2 * dilation * (kernel - 1) + 2 for kernel, dilation in sides))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return values.to(weight)


def refuse_fewer_factors(variant: Variant, config: Any, layer: Any, adapter: str) -> None:
    """Raise ``InputError`` if BOFT's layers have fewer butterfly factors than their configuration.

    The library compiles a CUDA extension when it builds BOFT. If that fails, it uses one factor, which makes it OFT.
    """
    factors = getattr(config, "boft_n_butterfly_factor", 1)
    if factors > 1 and len(layer.boft_R[adapter]) < factors:
        raise InputError(
            f"{variant.method} takes boft_n_butterfly_factor={factors} only with a GPU and a CUDA compiler (nvcc and "
            "ninja); here, the library would use 1"
        )
