"""The classifier head that every method trains."""

from __future__ import annotations

from torch import nn


def new_head(width: int, num_classes: int) -> nn.Linear:
    """Return a linear head: weights from a normal of deviation 0.02, truncated at +-2 (absolute), bias 0."""
    head = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
