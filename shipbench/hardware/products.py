"""Matrix products in bf16 on processors that have no instructions for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_PRODUCTS = {
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN.baddbmm.default,
    _ATEN.convolution.default,
    _ATEN.convolution_backward.default,
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default,
}
# The logarithms of sums that fused attention keeps for its gradient stay in fp32.
_ROUNDED_ALONE = {_ATEN._scaled_dot_product_flash_attention_for_cpu.default: 1}


class ProductsInFp32(TorchDispatchMode):
    """A context in which products of bf16 tensors, convolutions and attention are computed in fp32 and then rounded.

    Instructions for bf16 add their products up in fp32 as well, so results differ by the order of the additions. The
    gradients of what is computed in the context are to be computed in one, too.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Execute ``func``, in fp32 if it is a product of bf16 tensors."""
        options = kwargs or {}
        if func in _PRODUCTS and args[0].dtype == torch.bfloat16:
            results = func(*map(_widened, args), **{name: _widened(value) for name, value in options.items()})
            return _rounded(results, _ROUNDED_ALONE.get(func))
        # With gradients, torch has split such operations before; in inference mode, they arrive whole.
        if torch.is_inference_mode_enabled():
            with self:
                results = func.decompose(*args, **options)
            if results is not NotImplemented:
                return results
        return func(*args, **options)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _rounded(results: Any, count: int | None) -> Any:
    if isinstance(results, Tensor):
        return results.bfloat16()
    first = [result if result is None else result.bfloat16() for result in results[:count]]
    return (*first, *results[len(first) :])
