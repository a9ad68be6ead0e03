"""Scores of single images, to which the logits of every batch are reduced at once.

All logits of a split together would take 8 GB for 100,000 images and 20,000 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from shipbench.training.history import Evaluation


@dataclass(frozen=True)
class Scores:
    """The ``predicted`` class, its ``confidence`` and the cross-entropy ``loss`` of n images, each (n,)."""

    predicted: Tensor
    confidence: Tensor
    loss: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> Scores:
        """Score logits (n, classes), float32, against labels (n,)."""
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        return cls(predicted, confidence, F.cross_entropy(logits, labels, reduction="none"))

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """Concatenate the images of several batches."""
        return cls(
            torch.cat([part.predicted for part in parts]),
            torch.cat([part.confidence for part in parts]),
            torch.cat([part.loss for part in parts]),
        )

    def evaluation(self, labels: Tensor) -> Evaluation:
        """Return the scores of the split whose labels (n,) these are."""
        # Not as a mean in float64, which Apple's GPUs do not have.
        accuracy = float((self.predicted == labels).sum()) / len(labels)
        return Evaluation(float(self.loss.mean()), accuracy, self.predicted.cpu(), self.confidence.cpu())
