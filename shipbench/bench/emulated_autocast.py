"""CUDA's autocast on PyTorch's ``meta`` device, for counting operations without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

# The rules of CUDA's autocast for the functions that models call: products in bf16, norms and losses in fp32, and the
# widest type of all arguments.
_IN_BF16 = {
    F.linear,
    F.conv1d,
    F.conv2d,
    torch.conv1d,
    torch.conv2d,
    torch.bmm,
    torch.baddbmm,
    torch.einsum,
    torch.matmul,
    Tensor.matmul,
}
_IN_BF16 |= {Tensor.__matmul__, Tensor.bmm}
_IN_FP32 = {F.layer_norm, torch.layer_norm, F.softmax, torch.softmax, Tensor.softmax, F.cross_entropy, F.normalize}
_IN_FP32 |= {torch.linalg.vector_norm, Tensor.norm, Tensor.sum, torch.sum, F.cosine_similarity}
_IN_WIDEST = {torch.cat, torch.stack, torch.addcmul}


@contextmanager
def emulated_autocast(enabled: bool) -> Iterator[None]:
    """Let operations on the ``meta`` device choose their kernels and their types as on a CUDA device under autocast.

    ``full_precision`` switches the casts off, as it does on a CUDA device. Fused attention is the flash kernel in bf16
    and the memory-efficient kernel in fp32, and dropout is one kernel.
    """
    before = torch.is_autocast_enabled("cuda")
    torch.set_autocast_enabled("cuda", enabled)
    try:
        with _EmulatedAutocast():
            yield
    finally:
        torch.set_autocast_enabled("cuda", before)


class _EmulatedAutocast(TorchFunctionMode):
    """Casts the arguments of functions; the cast of a trained tensor is kept for the rest of the step."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func`` with the arguments that autocast would pass."""
        kwargs = kwargs or {}
        if torch.is_autocast_enabled("cuda"):
            args, kwargs = self._cast(func, args, kwargs)
        if func is F.scaled_dot_product_attention:
            return _fused_attention(*args)
        if func is F.dropout:
            return _fused_dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def _cast(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if func in _IN_BF16 or func is F.scaled_dot_product_attention:
            return tree_map(self._to_bf16, (args, kwargs))
        if func in _IN_FP32:
            return tree_map(_to_fp32, (args, kwargs))
        if func in _IN_WIDEST:
            types: set[torch.dtype] = set()
            tree_map(lambda leaf: types.add(leaf.dtype) if _is_number(leaf) else None, args)
            return (tree_map(_to_fp32, args) if torch.float32 in types else args), kwargs
        return args, kwargs

    def _to_bf16(self, leaf: Any) -> Any:
        if not _is_number(leaf) or leaf.dtype == torch.bfloat16:
            return leaf
        if not (leaf.requires_grad and leaf.is_leaf):
            return leaf.bfloat16()
        if id(leaf) not in self._kept:
            self._kept[id(leaf)] = leaf.bfloat16()
        return self._kept[id(leaf)]


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_meta and leaf.is_floating_point()


def _to_fp32(leaf: Any) -> Any:
    return leaf.float() if _is_number(leaf) else leaf


def _fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    if query.dtype == torch.bfloat16:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    keeps_sums = torch.is_grad_enabled()
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, keeps_sums)[0]


def _fused_dropout(values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or p == 0:
        # torch launches nothing then.
        return values
    dropped: Tensor = torch.ops.aten.native_dropout(values, p, training)[0]
    return dropped
