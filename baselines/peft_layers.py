"""The layers of a timm model that a tuner of the ``peft`` library acts on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

from shipbench.backbones import input_size_of, repeated_layers
from shipbench.errors import InputError

from .peft_settings import FEEDFORWARD

AUTO = "auto"
_STANDARDISED = (StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame)


def target_layers(backbone: nn.Module, text: str, *, norms: bool) -> list[str]:
    """Return the names of the layers that ``text`` names.

    ``auto`` is every norm (``norms``), or every linear layer of the repeated blocks and stages, or, in a model without
    any, every convolution without groups there. Otherwise ``text`` is a comma list of the last parts of names, as in
    ``qkv,fc1``.
    Raises ``InputError`` for a name that no layer has, for a layer whose weights timm reads without calling it, and
    without ``norms`` for a convolution that standardises its weights.
    """
    called = _called_layers(backbone)
    if text.strip() == AUTO:
        return _automatic(backbone, called, norms)
    layers = {name for name, _ in _layers(backbone)}
    chosen: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        matching = named(part, layers)
        if not part or not matching:
            endings = ", ".join(sorted({name.rpartition(".")[2] for name in called}))
            raise InputError(f"target_modules: no layer of the backbone is called {part!r}; it has {endings}")
        chosen += matching
    unused = sorted(set(chosen) - called)
    if unused:
        raise InputError(
            f"target_modules: timm computes {unused[0]} without calling it, so a tuner would have no effect there; "
            "leave it out"
        )
    if not norms:
        _refuse_standardised(backbone, chosen)
    return sorted(set(chosen))


def feedforward_layers(text: str, layers: Sequence[str]) -> list[str]:
    """Return those of the target ``layers`` that ``text`` names, a comma list of the last parts of names.

    Raises ``InputError`` for a name that none of them has, unless it is the default.
    """
    chosen: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        matching = named(part, layers)
        if not matching and text != FEEDFORWARD:
            raise InputError(f"feedforward_modules: none of target_modules is called {part!r}")
        chosen += matching
    return chosen


def named(part: str, layers: Iterable[str]) -> list[str]:
    """Return those of ``layers`` whose name is ``part`` or ends with it after a dot."""
    return [name for name in layers if f".{name}".endswith(f".{part}")]


def _refuse_standardised(backbone: nn.Module, layers: Iterable[str]) -> None:
    standardised = [name for name in layers if isinstance(backbone.get_submodule(name), _STANDARDISED)]
    if standardised:
        raise InputError(
            f"target_modules: {min(standardised)} standardises its weights in every pass, so a tuner would change "
            "something else than these weights; leave it out"
        )


def _automatic(backbone: nn.Module, called: set[str], norms: bool) -> list[str]:
    if norms:
        return [name for name, module in backbone.named_modules() if name in called and _is_norm(module)]
    for kind in (nn.Linear, nn.Conv2d):
        if repeated := [name for name in repeated_layers(backbone, kind) if name in called]:
            return repeated
    raise InputError(
        "the backbone has no linear layers or convolutions in repeated blocks; name some in target_modules"
    )


def _called_layers(backbone: nn.Module) -> set[str]:
    """Return the names of the layers with weights that a forward pass calls."""
    called: set[str] = set()
    handles = [module.register_forward_hook(_noting(name, called)) for name, module in _layers(backbone)]
    try:
        with torch.no_grad():
            weight = next(backbone.parameters())
            backbone(weight.new_zeros(1, 3, *input_size_of(backbone)))
    finally:
        for handle in handles:
            handle.remove()
    return called


def _layers(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in backbone.named_modules() if _has_weights(module))


def _has_weights(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), nn.Parameter)


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() and _has_weights(module)


def _noting(name: str, called: set[str]) -> Callable[..., None]:
    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        called.add(name)

    return note
