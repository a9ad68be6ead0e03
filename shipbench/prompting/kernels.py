"""The choice of how attention is computed: by PyTorch's fused kernel, or on a CPU in matrix products of our own.

It follows from shapes, precision and hardware alone. What was measured for it is in docs/explanation/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shipbench.prompting import static
from shipbench.prompting.written_out import attend_with_gradient_in_products

# Up to this many keys that all images share, matrix products are faster than the fused kernel on a CPU.
_FEW_KEYS = 128
# Up to this many keys of each image, they are faster for the gradient of attention in bf16. A ViT/14 with registers
# has 261 at 224 px.
_FEW_IN_BF16 = 264
# These instructions multiply in bf16 many times faster than in fp32, in which the products are computed.
_HAS_AMX = bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())
# What ``scaled_dot_product_attention`` does beyond the equation of ``attend`` if it is not told otherwise.
_NOTHING_ELSE = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "scale": None, "enable_gqa": False}


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, (B, H, T, d), for separate keys and values (B, H, P, d) per image."""
    trained = torch.is_grad_enabled() and any(operand.requires_grad for operand in (query, key, value))
    if trained and gains_in_bf16(query, key, value):
        return attend_with_gradient_in_products(*in_bf16(query, key, value))
    return F.scaled_dot_product_attention(query, key, value)


def attention_of_modules(model: nn.Module, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which the modules of ``model``, on ``device``, call ``attend`` for PyTorch's attention."""
    if is_fused(device) or not (torch.is_grad_enabled() and _autocasts_to_bf16()):
        return nullcontext()
    # What a checkpoint computes again, in the backward pass, would be computed without the context.
    if any(getattr(module, "grad_checkpointing", False) for module in model.modules()):
        return nullcontext()
    return _Attending()


def is_fused(device: torch.device) -> bool:
    """Return whether all attention on ``device`` is left to the fused kernel."""
    # An exported program holds neither custom gradients nor a size that depends on the number of images.
    return static.is_static(device) or torch.compiler.is_exporting()


def is_few(key: Tensor) -> bool:
    """Return whether attention to keys (S, H, P, d) that images share is faster in matrix products on a CPU."""
    return len(key) > 1 or key.shape[2] <= _FEW_KEYS


def gains_in_bf16(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether the gradient of attention to keys (B, H, P, d) of each image is faster in matrix products.

    Operands in fp32 count as bf16 where autocast makes them bf16.
    """
    if is_fused(query.device) or _HAS_AMX or key.shape[2] > _FEW_IN_BF16:
        return False
    cast = (torch.float32, torch.bfloat16) if _autocasts_to_bf16() else (torch.bfloat16,)
    return all(operand.dtype in cast for operand in (query, key, value))


def in_bf16(*operands: Tensor) -> tuple[Tensor, ...]:
    """Return operands for which ``gains_in_bf16`` is true as autocast casts them."""
    return tuple(operand.bfloat16() for operand in operands)


def _autocasts_to_bf16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


class _Attending(TorchFunctionMode):
    """Calls of ``scaled_dot_product_attention`` that give queries, keys and values alone become calls of ``attend``."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is F.scaled_dot_product_attention and len(args) == 3 and _adds_nothing(options):
            query, key, value = args
            if query.ndim == 4 and query.shape[:2] == key.shape[:2] and key.shape == value.shape:
                return attend(query, key, value)
        return func(*args, **options)


def _adds_nothing(options: Mapping[str, Any]) -> bool:
    return all(
        name in _NOTHING_ELSE and not isinstance(option, Tensor) and option == _NOTHING_ELSE[name]
        for name, option in options.items()
    )
