"""The state of every run in a results folder, from its records, claims, checkpoints and plans.

Nothing here imports torch, writes to the folder's records or disturbs the processes that work in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from shipbench.errors import InputError
from shipbench.record import EVALUATED, TRAINED, UNSEALED
from shipbench.results import claims
from shipbench.results.loading import Row, load_rows
from shipbench.results.lookup import visible_files
from shipbench.results.plans import PlanEntry, PlanNote, load_plans
from shipbench.results.store import Store

_FOLDERS = ("runs", "claims", "checkpoints", "plans")
_MOST_HEADER_BYTES = 100_000_000
_RECENT_EPOCHS = 5


@dataclass(frozen=True)
class TrainedEpochs:
    """What a checkpoint says: finished ``epochs`` of ``of``, and the mean seconds of an epoch by the wall clock.

    Training counts as in the last few epochs, evaluations as in all of them.
    """

    epochs: int
    of: int
    seconds_per_epoch: float


@dataclass(frozen=True)
class ActiveRun:
    """A run under way: its last checkpoint, if it has written one, and the process that holds its claim.

    ``seconds_left`` is an estimate from the pace of its epochs and the age of the checkpoint.
    """

    run_id: str
    title: str
    trained: TrainedEpochs | None
    seconds_left: float | None
    host: str
    pid: int | None
    engine: str


@dataclass(frozen=True)
class FailedRun:
    """A run whose record is a failure, with the first line of its error."""

    run_id: str
    title: str
    error: str


@dataclass(frozen=True)
class UnsealedRun:
    """A run whose record another program has written again, so that commands refuse it instead of skipping the run."""

    run_id: str
    title: str


@dataclass(frozen=True)
class PendingRun:
    """A run that nobody executes now: one of a plan, or one that was interrupted and left a checkpoint."""

    run_id: str
    title: str
    method: str
    task: str
    engine: str
    trained: TrainedEpochs | None


@dataclass(frozen=True)
class FolderStatus:
    """The state of a results folder: the number of finished runs, all others, and ended runs without a seal."""

    done: int
    active: tuple[ActiveRun, ...]
    failed: tuple[FailedRun, ...]
    pending: tuple[PendingRun, ...]
    unsealed: tuple[UnsealedRun, ...]


def folder_status(results: Path | str) -> FolderStatus:
    """Return the state of a results folder; raises ``InputError`` if there is none, or if a record is unreadable."""
    root = Path(results)
    if not any((root / name).is_dir() for name in _FOLDERS):
        raise InputError(
            f"there are no results in {root}: it has none of the folders {', '.join(_FOLDERS)}; name another folder"
        )
    # In this order: a run that ends in between is then done, and not missing.
    holders = claims.holders(root)
    checkpoints = {path.stem: path for path in visible_files(root / "checkpoints", ".safetensors")}
    planned = _planned(load_plans(root))
    rows = {row["run_id"]: row for row in (load_rows(root) if (root / "runs").is_dir() else [])}
    to_come = _to_be_repeated(planned, holders, Store(root))
    ended = {run_id: row for run_id, row in rows.items() if run_id not in holders and run_id not in to_come}
    left = dict.fromkeys([*planned, *sorted(checkpoints)])
    return FolderStatus(
        # Evaluations of runs and results of other harnesses are records too.
        done=sum(row["status"] == "done" and row["kind"] == TRAINED for row in ended.values()),
        active=tuple(_active(run_id, holders[run_id], checkpoints, planned, rows) for run_id in sorted(holders)),
        failed=tuple(_failed(row) for row in ended.values() if row["status"] != "done"),
        pending=tuple(
            _pending(run_id, checkpoints, planned) for run_id in left if run_id not in holders and run_id not in ended
        ),
        unsealed=tuple(UnsealedRun(row["run_id"], _title(row)) for row in ended.values() if row["origin"] == UNSEALED),
    )


def trained_epochs(checkpoint: Path) -> TrainedEpochs | None:
    """Return the progress that a checkpoint holds, read from its header alone; None if it cannot be read."""
    try:
        with checkpoint.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size)) if size <= _MOST_HEADER_BYTES else {}
        epochs = json.loads(header["__metadata__"]["content"])["epochs"]
        training = [_elapsed(epoch, "train_seconds") for epoch in epochs[-_RECENT_EPOCHS:]]
        # Few epochs end with an evaluation, which may take longer than all the training between two of them.
        evaluations = [_elapsed(epoch, "eval_seconds") for epoch in epochs]
        return TrainedEpochs(len(epochs), int(epochs[-1]["epochs"]), fmean(training) + fmean(evaluations))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def _elapsed(epoch: Mapping[str, Any], column: str) -> float:
    """Return the seconds that have passed, of which an epoch in a checkpoint holds the share of one run."""
    return float(epoch[column]) * int(epoch.get("runs", 1))


def _planned(notes: list[PlanNote]) -> dict[str, tuple[PlanEntry, PlanNote]]:
    """Return every planned run by id, with the newest plan that names it."""
    return {run.run_id: (run, note) for note in reversed(notes) for run in note.runs}


def _to_be_repeated(
    planned: Mapping[str, tuple[PlanEntry, PlanNote]], holders: Collection[str], store: Store
) -> set[str]:
    """Return the runs with a record that plans under way repeat; one that has stopped leaves the record as it is."""
    # Of a command on another machine, the runs that are claimed tell that it is at work.
    claimed = {id(planned[run_id][1]) for run_id in holders if run_id in planned}
    under_way = {id(note): note.is_under_way for _, note in planned.values()}
    return {
        run_id
        for run_id, (entry, note) in planned.items()
        if (id(note) in claimed if under_way[id(note)] is None else under_way[id(note)])
        and entry.record_version is not None
        and store.written(run_id) == entry.record_version
    }


def _active(
    run_id: str,
    holder: claims.ClaimHolder | None,
    checkpoints: Mapping[str, Path],
    planned: Mapping[str, tuple[PlanEntry, PlanNote]],
    rows: Mapping[str, Row],
) -> ActiveRun:
    trained = trained_epochs(checkpoints[run_id]) if run_id in checkpoints else None
    title = planned[run_id][0].title if run_id in planned else _title(rows[run_id]) if run_id in rows else ""
    return ActiveRun(
        run_id,
        title,
        trained,
        None if trained is None else _seconds_left(trained, checkpoints[run_id]),
        "" if holder is None else holder.host,
        None if holder is None else holder.pid,
        planned[run_id][1].engine if run_id in planned else "",
    )


def _seconds_left(trained: TrainedEpochs, checkpoint: Path) -> float | None:
    try:
        age = max(0.0, time.time() - checkpoint.stat().st_mtime)
    except FileNotFoundError:
        return None
    return max(0.0, (trained.of - trained.epochs) * trained.seconds_per_epoch - age)


def _failed(row: Row) -> FailedRun:
    lines = str(row["error"] or "").strip().splitlines()
    return FailedRun(row["run_id"], _title(row), lines[0] if lines else "no reason recorded")


def _title(row: Mapping[str, Any]) -> str:
    switches = f" [{row['switches']}]" if row["switches"] else ""
    title = f"{row['method']}{switches} on {row['task']}, seed {row['seed']}"
    return f"evaluation of {title}" if row["kind"] == EVALUATED else title


def _pending(
    run_id: str, checkpoints: Mapping[str, Path], planned: Mapping[str, tuple[PlanEntry, PlanNote]]
) -> PendingRun:
    trained = trained_epochs(checkpoints[run_id]) if run_id in checkpoints else None
    if run_id not in planned:
        return PendingRun(run_id, "", "", "", "", trained)
    entry, note = planned[run_id]
    return PendingRun(run_id, entry.title, entry.method, entry.task, note.engine, trained)
