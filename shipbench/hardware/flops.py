"""Counting compute."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_flops(work: Callable[[], object]) -> float:
    """Return the floating-point operations of the matrix products and attentions in ``work`` (2 per multiply-add)."""
    # The counter follows modules through gradient hooks, which views of parameters made without gradients do not bear.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
