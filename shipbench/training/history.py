"""What training and evaluation come to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """Scores of one split: mean ``loss``, ``accuracy`` in [0, 1]; ``predicted`` and ``confidence`` (n,) on the CPU."""

    loss: float
    accuracy: float
    predicted: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class EpochReport:
    """One epoch of training: its mean loss, rate and speed, and the evaluation that followed it, if any."""

    epoch: int
    epochs: int
    train_loss: float
    learning_rate: float
    train_seconds: float
    images: int
    evaluation: Evaluation | None = None
    eval_seconds: float = 0.0

    def without_predictions(self) -> EpochReport:
        """Return the same report with nothing per image in it."""
        if self.evaluation is None:
            return self
        nothing = torch.empty(0)
        return replace(self, evaluation=replace(self.evaluation, predicted=nothing, confidence=nothing))


@dataclass(frozen=True)
class Fit:
    """All epochs of a finished training run.

    ``micro_batch`` is the number of images that went through the model at once after the device ran out of memory,
    0 if it never did.
    """

    epochs: list[EpochReport] = field(default_factory=list)
    micro_batch: int = 0

    @property
    def evaluated(self) -> list[tuple[int, Evaluation]]:
        """The evaluations, with the epochs that they followed."""
        return [(report.epoch, report.evaluation) for report in self.epochs if report.evaluation is not None]
