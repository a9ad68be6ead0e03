"""Counts of floating-point operations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_flops(work: Callable[[], object]) -> float:
    """Return the FLOPs of the matrix products and attentions in ``work``, 2 per multiply-add."""
    # The counter attaches gradient hooks, which fail on parameter views created without gradients.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
