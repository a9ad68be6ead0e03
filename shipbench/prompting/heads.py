"""The classifier head that every method trains."""

from __future__ import annotations

from torch import nn


def new_head(width: int, num_classes: int) -> nn.Linear:
    """Return a linear head with weights from N(0, 0.02^2), truncated at +-2 (not at 2 deviations), and zero bias."""
    head = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
