"""Counts of floating-point operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

_Shape = Sequence[int]


def _attention(query: _Shape, key: _Shape, value: _Shape, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: _Shape, query: _Shape, key: _Shape, value: _Shape, *_: object, **__: object) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# torch counts the fused attention of CUDA, but neither that of the CPU nor that of MPS, which has no backward pass.
_FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_attention_math_for_mps: _attention,
}


def count_flops(work: Callable[[], object]) -> float:
    """Return the FLOPs of the matrix products and attentions in ``work``, 2 per multiply-add, on any device."""
    # The counter attaches gradient hooks, which fail on parameter views created without gradients.
    with torch.enable_grad(), FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        work()
    return float(counter.get_total_flops())
