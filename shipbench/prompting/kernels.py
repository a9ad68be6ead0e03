"""The choice of how attention is computed: by PyTorch's fused kernel, or on a CPU in matrix products of our own.

It follows from shapes, precision and hardware alone. What was measured for it is in docs/explanation/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from shipbench.prompting import static
from shipbench.prompting.written_out import attend_with_gradient_in_products

# Up to this many keys that all images share, matrix products are faster than the fused kernel on a CPU.
_FEW_KEYS = 128
# Up to this many keys, they are faster for the gradient of attention in bf16: that of the fused kernel is slow.
_FEW_IN_BF16 = 288
# These instructions multiply in bf16 many times faster than in fp32, in which the products are computed.
_HAS_AMX = bool(torch.cpu._is_amx_tile_supported())


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, (B, H, T, d), for separate keys and values (B, H, P, d) per image."""
    if _has_gradient(query, key, value) and gains_in_bf16(query, key, value):
        return attend_with_gradient_in_products(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def attention_of_modules(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which modules that call PyTorch's attention on ``device`` call ``attend`` instead."""
    return nullcontext() if is_fused(device) or not torch.is_grad_enabled() else _Attending()


def is_fused(device: torch.device) -> bool:
    """Return whether all attention on ``device`` is left to the fused kernel."""
    # An exported program holds neither custom gradients nor a size that depends on the number of images.
    return static.is_static(device) or torch.compiler.is_exporting()


def is_few(key: Tensor) -> bool:
    """Return whether attention to keys (S, H, P, d) that images share is faster in matrix products on a CPU."""
    return len(key) > 1 or key.shape[2] <= _FEW_KEYS


def gains_in_bf16(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether the gradient of attention to keys (B, H, P, d) of each image is faster in matrix products."""
    if is_fused(query.device) or _HAS_AMX or key.shape[2] > _FEW_IN_BF16:
        return False
    return all(operand.dtype == torch.bfloat16 for operand in (query, key, value))


def _has_gradient(*operands: Tensor) -> bool:
    return torch.is_grad_enabled() and any(operand.requires_grad for operand in operands)


class _Attending(TorchFunctionMode):
    """Calls of ``scaled_dot_product_attention`` that give queries, keys and values alone become calls of ``attend``."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is F.scaled_dot_product_attention and len(args) == 3 and not any(map(_is_given, options.values())):
            query, key, value = args
            if query.ndim == 4 and query.shape[:2] == key.shape[:2] and key.shape == value.shape:
                return attend(query, key, value)
        return func(*args, **options)


def _is_given(option: Any) -> bool:
    return isinstance(option, Tensor) or bool(option)
