"""Counting arithmetic."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode


def count_flops(work: Callable[[], object]) -> float:
    """Return the floating-point operations of the matrix products and attentions in ``work`` (2 per multiply-add)."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
