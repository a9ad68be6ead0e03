"""Runs, events and records for the tests of trackers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from shipbench.events import EpochDone, Event, Finished, Note, Started
from shipbench.record import RunRecord
from shipbench.results.store import RunTables, Store
from shipbench.trackers.interface import TrackedRun, Tracker
from shipbench.trackers.outcome import outcome
from shipbench.trackers.relay import Relay
from tests.results.test_store import make_record

RUN = TrackedRun("a1", "ship on dtd, seed 0", {"method": "ship", "seed": 0, "protocol": "final", "cfg.lr": 0.01})
CURVE = [(1, 0.01), (2, 0.02), (3, 0.03)]
"""The epochs and the accuracies of a whole run."""
AFFINITY = json.dumps([[1.0, 0.5], [0.5, 1.0]])


def stored_record(results: Path, **changes: object) -> RunRecord:
    """Write the record of a finished run of SHIP into ``results``, with three predictions, and return it."""
    values = {"run_id": "a1", "final_test_acc": 0.75, "levels": "[0]", "affinity": AFFINITY, "affinity_std": AFFINITY}
    record = make_record(**{**values, **changes})
    predictions = {"index": [0, 1, 2], "label": [0, 1, 1], "predicted": [0, 1, 0], "confidence": [0.5, 0.5, 0.5]}
    Store(results).write(record, RunTables(predictions=predictions))
    return record


def epochs(first: int, last: int) -> list[Event]:
    """Return epochs from ``first`` to ``last``, counted from 1; the accuracy is a hundredth of the epoch."""
    return [
        EpochDone("a1", epoch - 1, 3, 1 / epoch, 0.1, 2.0, 100, accuracy=epoch / 100)
        for epoch in range(first, last + 1)
    ]


def interrupted_then_finished(make: Callable[[], Tracker], results: Path) -> RunRecord:
    """Send a run that is interrupted after two epochs and resumed from the first by another process; return its record.

    Each process has a tracker of its own.
    """
    lines: list[str] = []
    with relay(make(), results, lines) as listen:
        for event in (Started("a1"), Note("a1", "12 semantic levels"), *epochs(1, 2)):
            listen(event)
    record = stored_record(results)
    with relay(make(), results, lines) as listen:
        for event in (Started("a1"), *epochs(2, 3), Finished("a1", record)):
            listen(event)
    assert not [line for line in lines if "nothing more is sent" in line], lines
    return record


def failed_from_the_start(tracker: Tracker, results: Path) -> None:
    """Send a run that starts again and fails after an epoch."""
    opened = tracker.open(replace(RUN, fresh=True))
    opened.note("11 levels")
    opened.note("12 levels")
    opened.log(1, {"test_acc": 0.01})
    record = stored_record(results, status="failed", error="out of memory")
    opened.finish(outcome(record, results))


def relay(tracker: Tracker, results: Path, lines: list[str], *, grace: float = 60.0) -> Relay:
    """Return a relay to one tracker, called "it"."""
    return Relay({"it": tracker}, {"a1": RUN}, results, lines.append, grace=grace)
