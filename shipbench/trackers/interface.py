"""The interface of a tracker, which opens runs, and of its runs, which take epochs, notes and an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shipbench.record import RunRecord

if TYPE_CHECKING:
    from PIL.Image import Image

PROJECT = "shipbench"


@dataclass(frozen=True)
class TrackerOptions:
    """The options of a command that concern its trackers: the ``results`` folder, in which local ones may write."""

    results: Path


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker shows it before it starts.

    ``config`` holds the method, the task and the other facts of the spec under the names that the record gives them,
    and each setting as ``cfg.*``. A ``fresh`` run has a curve of its own even if the tracker knows its id, because it
    trains from its first epoch.
    """

    run_id: str
    title: str
    config: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False

    @property
    def accuracy_name(self) -> str:
        """The name of the accuracy after an epoch: ``val_acc`` while tuning, else ``test_acc``."""
        return "val_acc" if self.config.get("protocol") == "tuning" else "test_acc"


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    ``numbers`` are the scores and costs of the record by column, without unknown ones. ``files`` are the record and
    the tables beside it in the results folder. ``figures`` draws the figures of the run by name; it takes a second.
    """

    record: RunRecord
    numbers: Mapping[str, float]
    files: tuple[Path, ...]
    figures: Callable[[], Mapping[str, Image]]


class OpenRun(Protocol):
    """A run that a tracker has opened."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add an epoch, counted from 1; epochs arrive in order, each once."""
        ...

    def note(self, text: str) -> None:
        """Add one line of text."""
        ...

    def finish(self, outcome: Outcome) -> None:
        """Add what the record holds and end the run, done or failed."""
        ...

    def close(self) -> None:
        """Leave the run unfinished: the command was interrupted, or another process has taken it over."""
        ...


class Tracker(Protocol):
    """Sends runs to one place.

    An entry point names a class that is constructed with ``TrackerOptions``. Importing it must import neither torch
    nor the tracker's library. Methods may block and raise: a tracker is called in a thread of its own, in which an
    exception ends the tracking and nothing else.
    """

    @property
    def where(self) -> str:
        """Where to look at the runs, as one line: a command or an address."""
        ...

    def check(self) -> None:
        """Raise ``InputError`` if the library is not installed or not set up; called before anything runs."""
        ...

    def open(self, run: TrackedRun) -> OpenRun:
        """Start a run, or continue the one with this id unless the run is ``fresh``.

        Called at the first epoch of a run, or at its end if it fails before. Several runs may be open at once.
        """
        ...
