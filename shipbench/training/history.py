"""Results of training: the report of each epoch and of each evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from shipbench.events import EpochDone


@dataclass(frozen=True)
class Evaluation:
    """Scores on one split: mean ``loss``, ``accuracy`` in [0, 1]; ``predicted`` and ``confidence`` (n,) on the CPU."""

    loss: float
    accuracy: float
    predicted: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class EpochReport:
    """One epoch of training, counted from 0: mean loss, learning rate, speed, and the evaluation after it, if any.

    The seconds are this run's equal share if several ``runs`` train together. They share evaluations too, whichever of
    them an evaluation is for.
    """

    epoch: int
    epochs: int
    train_loss: float
    learning_rate: float
    train_seconds: float
    images: int
    evaluation: Evaluation | None = None
    eval_seconds: float = 0.0
    runs: int = 1

    def to_event(self, run_id: str) -> EpochDone:
        """Return the event that reports this epoch, in plain numbers."""
        accuracy = None if self.evaluation is None else self.evaluation.accuracy
        return EpochDone(
            run_id,
            self.epoch,
            self.epochs,
            self.train_loss,
            self.learning_rate,
            self.train_seconds,
            self.images,
            accuracy,
        )


@dataclass(frozen=True)
class Fit:
    """All epochs of a finished training run.

    ``micro_batch`` is the number of images per forward pass after the device ran out of memory, 0 if it never did.
    ``captured`` tells whether full training steps were recorded once and replayed.
    """

    epochs: list[EpochReport] = field(default_factory=list)
    micro_batch: int = 0
    captured: bool = False

    @property
    def evaluated(self) -> list[tuple[int, Evaluation]]:
        """The evaluations as (epoch, evaluation) pairs."""
        return [(report.epoch, report.evaluation) for report in self.epochs if report.evaluation is not None]
