"""Events of runs in progress, and the listener that receives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from shipbench.record import RunRecord


@dataclass(frozen=True)
class Started:
    """A run has started."""

    run_id: str


@dataclass(frozen=True)
class Note:
    """One line of text about a run; ``run_id`` is None if it concerns the whole plan or the machine."""

    run_id: str | None
    text: str


@dataclass(frozen=True)
class EpochDone:
    """A run has trained for another epoch, the ``epoch``-th of ``epochs``, counted from 0.

    ``train_loss`` is the mean over the epoch's steps; the epoch read ``images`` images in ``train_seconds``.
    ``accuracy`` in [0, 1] is None unless an evaluation followed.
    """

    run_id: str
    epoch: int
    epochs: int
    train_loss: float
    learning_rate: float
    train_seconds: float
    images: int
    accuracy: float | None = None


@dataclass(frozen=True)
class Lost:
    """Another process has taken over the run; this one stores nothing for it."""

    run_id: str


@dataclass(frozen=True)
class Finished:
    """A run has ended, done or failed, with this record."""

    run_id: str
    record: RunRecord


Event: TypeAlias = Started | Note | EpochDone | Lost | Finished


class Listener(Protocol):
    """Receives events.

    A listener must be thread-safe: worker processes and clusters deliver their events in threads of their own.
    """

    def __call__(self, event: Event, /) -> None:
        """Handle an event; an exception stops the run that emitted it."""
        ...


@dataclass(frozen=True)
class Emitter:
    """Emit the events of one run to a listener, or discard them if there is none."""

    run_id: str = ""
    listener: Listener | None = None

    def emit(self, event: Event) -> None:
        """Pass an event to the listener."""
        if self.listener is not None:
            self.listener(event)

    def note(self, text: str) -> None:
        """Emit a ``Note`` about this run."""
        self.emit(Note(self.run_id, text))


DISCARD = Emitter()
"""The emitter of a run without a listener."""
