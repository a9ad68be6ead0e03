"""What happens to the runs of a grid, and who listens."""

from __future__ import annotations

from typing import Protocol

from shipbench.planning.plan import PlannedRun
from shipbench.record import RunRecord
from shipbench.training.history import EpochReport


class Reporter(Protocol):
    """Hears what happens; every call may come from another thread than the one that made the reporter."""

    def started(self, run: PlannedRun) -> None:
        """A run has begun."""
        ...

    def note(self, run: PlannedRun, text: str) -> None:
        """A method has something to say."""
        ...

    def epoch(self, run: PlannedRun, report: EpochReport) -> None:
        """An epoch is over."""
        ...

    def finished(self, run: PlannedRun, record: RunRecord) -> None:
        """A run is over, done or failed."""
        ...
