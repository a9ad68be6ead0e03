"""The classifier head that every method trains."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from shipbench.prompting.full_precision import at_least_float32, full_precision


class Head(nn.Linear):
    """A linear layer that computes in float32 or better, also under autocast.

    In bf16, close classes round to equal logits, and the order of the classes decides the prediction.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, classes) of features (B, D)."""
        with full_precision(features.device):
            return F.linear(*map(at_least_float32, (features, self.weight, self.bias)))


def new_head(width: int, num_classes: int) -> Head:
    """Return a linear head with weights from N(0, 0.02^2), truncated at +-2 (not at 2 deviations), and zero bias.

    It computes in float32 or better, also under autocast.
    """
    head = Head(width, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
