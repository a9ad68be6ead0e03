"""Import results of other harnesses: find their files, read them, and store each result as a record."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from shipbench.errors import InputError, one_line
from shipbench.record import IMPORTED, NAN, SEED_UNKNOWN, RunRecord, time_now
from shipbench.results.foreign.result import (
    HEAD_PARAMETERS_PER_CLASS,
    Evaluation,
    ForeignResult,
    Harness,
    Naming,
    Reading,
    Skipped,
)
from shipbench.results.foreign.tasks import catalogued_task
from shipbench.results.foreign.text import read_text
from shipbench.results.loading import load_rows
from shipbench.results.store import RunTables, Store
from shipbench.runtime.file_kinds import impostor
from shipbench.runtime.files import file_sha256, seen_from
from shipbench.tasks import TASKS

State: TypeAlias = Literal["imported", "already imported", "skipped"]
_ID_LETTERS = 16
# What the readers raise for content that is not of their format; Python's parser has no memory for deep nesting.
_UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError, OSError, csv.Error),
    *(SyntaxError, RecursionError, MemoryError),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a file or of one of its results: its record, or the reason why there is none."""

    file: Path
    state: State
    record: RunRecord | None = None
    reason: str = ""


def import_results(
    harness: Harness, path: Path, store: Store, naming: Naming | None = None, *, dry_run: bool = False
) -> list[Outcome]:
    """Read a file, or every file of ``harness`` in a folder, and store the results that ``store`` does not have.

    Nothing is written before all files are read, nor with ``dry_run``. Raises ``InputError`` if ``path`` does not
    exist, holds no file of the harness, or is a single file that cannot be imported.
    """
    naming = naming or Naming()
    _check_naming(harness, naming)
    files = list(_files(harness, path))
    stated = [reading for file in files for reading in _readings(harness, file, naming)]
    _check_one_task(path, naming, stated)
    readings = [reading if isinstance(reading, Skipped) else _renamed(reading, naming) for reading in stated]
    reasons = [reading.reason for reading in readings if isinstance(reading, Skipped)]
    if path.is_file() and len(reasons) == len(readings):
        raise InputError(f"{path} cannot be imported: {reasons[0]}")
    outcomes = _outcomes(store, harness.name, readings)
    if not dry_run:
        for reading, outcome in zip(readings, outcomes, strict=True):
            if outcome.state == "imported" and outcome.record is not None and isinstance(reading, ForeignResult):
                store.write(outcome.record, RunTables(history=_history(reading.history)))
    return outcomes


def _outcomes(store: Store, origin: str, readings: Sequence[Reading]) -> list[Outcome]:
    """Return what becomes of each reading; of equal results, as in a folder and its copy, the first is imported."""
    earlier = _earlier_versions(store)
    hashes = {file: file_sha256(file) for file in {r.file for r in readings if isinstance(r, ForeignResult)}}
    first: dict[str, Path] = {}
    outcomes = []
    for reading in readings:
        if isinstance(reading, Skipped):
            outcomes.append(Outcome(reading.file, "skipped", reason=reading.reason))
            continue
        record = to_record(reading, origin, hashes[reading.file], seen_from(reading.file, store.root))
        if record.run_id in first:
            reason = f"the same result as in {first[record.run_id]}"
            outcomes.append(Outcome(reading.file, "skipped", reason=reason))
            continue
        first[record.run_id] = reading.file
        outcomes.append(_outcome(store, record, reading.file, earlier))
    return outcomes


def _check_naming(harness: Harness, naming: Naming) -> None:
    if naming.unit is not None and harness.name != "csv" and naming.unit != harness.unit:
        raise InputError(f"--unit: {harness.files} states accuracies as {harness.unit}; leave --unit out")
    if harness.name == "csv" and (naming.method or naming.task):
        raise InputError("--method and --task: a CSV file names them in its columns; leave the options out")


def _check_one_task(path: Path, naming: Naming, readings: Sequence[Reading]) -> None:
    tasks = sorted({reading.task for reading in readings if isinstance(reading, ForeignResult) and reading.task})
    if naming.task is not None and len(tasks) > 1:
        raise InputError(
            f"--task names one task, but {path} holds results of {' and '.join(tasks[:2])}; import them one by one"
        )


def _files(harness: Harness, path: Path) -> Iterator[Path]:
    """Yield a file as it is, and from a folder all files that the harness writes, in the order of their paths."""
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise InputError(f"{path} does not exist; name a file or a folder of results")
    files = [
        Path(folder, name)
        for top in (path, *_linked_folders(path))
        for folder, _, names in os.walk(top)
        for name in names
        if not name.startswith(".") and harness.is_candidate(Path(folder, name))
    ]
    if not files:
        raise InputError(f"there is no {harness.files} in {path}")
    yield from sorted(files)


def _linked_folders(path: Path) -> Iterator[Path]:
    """Yield the links in a folder to folders elsewhere: output may lie on another disk.

    A link to a folder on the way to itself or below ``path``, such as ``latest``, is one that is read anyway.
    """
    root = path.resolve()
    for folder, folders, _ in os.walk(path):
        for link in sorted(Path(folder, name) for name in folders):
            target = link.resolve()
            if link.is_symlink() and not target.is_relative_to(root) and not root.is_relative_to(target):
                yield link


def _readings(harness: Harness, file: Path, naming: Naming) -> list[Reading]:
    try:
        if not read_text(file).strip():
            return [Skipped(file, "it is empty")]
        if clause := impostor(file.read_bytes(), "name the file of results"):
            return [Skipped(file, f"it {clause}")]
        return list(harness.read(file, naming)) or [Skipped(file, "it holds no result")]
    except _UNREADABLE as error:
        return [Skipped(file, f"it cannot be read: {one_line(error)}")]


def _renamed(result: ForeignResult, naming: Naming) -> Reading:
    """Return a result of the task that the user names; one without a task or an accuracy is left out."""
    if result.final is None and result.best is None and result.stated is None:
        return Skipped(result.file, "it states no accuracy")
    if naming.task is not None:
        task = catalogued_task(naming.task) or naming.task
        return replace(result, task=task, suite=TASKS[task].suite if task in TASKS else "")
    if not result.task:
        return Skipped(result.file, "it does not state its task; name it with --task")
    return result


def to_record(result: ForeignResult, origin: str, sha256: str, place: str) -> RunRecord:
    """Return the record of a result from the file at ``place``; its id hashes the origin, the content and the row.

    ``place`` is a path as seen from the results folder: it names no folder of the user, and both may move together.
    """
    named = TASKS.get(result.task)
    catalogued = named if named is not None and named.suite == result.suite else None
    written = result.parameters if result.parameters_as_written is None else result.parameters_as_written
    identity = json.dumps([origin, sha256, result.row, result.method, result.task, result.seed])
    with_head, without_head = _parameters(result, catalogued.num_classes if catalogued else result.classes)
    return RunRecord(
        run_id=hashlib.sha256(identity.encode()).hexdigest()[:_ID_LETTERS],
        status="done",
        method=result.method,
        task=result.task,
        group=catalogued.group if catalogued else "",
        suite=result.suite,
        seed=SEED_UNKNOWN if result.seed is None else result.seed,
        recipe="",
        protocol="final",
        settings=result.settings,
        backbone="",
        backbone_sha256="",
        checkpoint="",
        image_size=0,
        data_fingerprint="",
        image_format="",
        num_classes=catalogued.num_classes if catalogued else result.classes or 0,
        precision="",
        device="",
        origin=origin,
        kind=IMPORTED,
        origin_file=place,
        origin_file_sha256=sha256,
        origin_note=result.note,
        reference=result.reference,
        epoch_rule=_rule(result),
        created=time_now(),
        trainable_params=with_head,
        trainable_params_without_head=without_head,
        params_as_written=_or_nan(written),
        params_with_head={True: "yes", False: "no", None: ""}[result.with_head],
        final_test_acc=_or_nan(result.final),
        best_test_acc=_or_nan(result.best),
        best_test_epoch=-1 if result.best_epoch is None else result.best_epoch,
        stated_acc=_or_nan(result.stated),
        levels=json.dumps(list(result.levels)) if result.levels else "",
    )


def _rule(result: ForeignResult) -> str:
    if result.final is not None:
        return "final"
    return "oracle" if result.best is not None else result.rule


def _or_nan(value: float | None) -> float:
    return NAN if value is None else value


def _parameters(result: ForeignResult, classes: int | None) -> tuple[int, int]:
    """Return the trained parameters with and without a linear head on 768 features; 0 where that is unknown."""
    # A count with a fraction is one in millions, or in another unit: its size is a guess.
    if result.parameters is None or result.with_head is None or not float(result.parameters).is_integer():
        return 0, 0
    count = round(result.parameters)
    # The size of another head, such as that of an MLP or on ViT-L, does not follow from the classes.
    if classes is None or result.other_head:
        return (count, 0) if result.with_head else (0, count)
    head = HEAD_PARAMETERS_PER_CLASS * classes
    return (count, count - head) if result.with_head else (count + head, count)


def _earlier_versions(store: Store) -> Mapping[tuple[Any, ...], Mapping[str, Any]]:
    """Return the rows of imported records by what stays the same when a file changes."""
    if not (store.root / "runs").is_dir():
        return {}
    rows = [row for row in load_rows(store.root) if row["kind"] == IMPORTED]
    names = ("origin", "origin_file", "method", "task", "seed", "epoch_rule", "config")
    return {tuple(row[name] for name in names): row for row in rows}


def _outcome(
    store: Store, record: RunRecord, file: Path, earlier: Mapping[tuple[Any, ...], Mapping[str, Any]]
) -> Outcome:
    if store.path("runs", record.run_id).exists():
        return Outcome(file, "already imported", record)
    key = (record.origin, record.origin_file, record.method, record.task, record.seed, record.epoch_rule)
    before = earlier.get((*key, record.to_row()["config"]))
    if before is not None:
        reason = f"run {before['run_id']} is this result from an earlier version of the file; remove it to import again"
        return Outcome(file, "skipped", reason=reason)
    return Outcome(file, "imported", record)


def _history(evaluations: Sequence[Evaluation]) -> dict[str, list[Any]]:
    """Return the columns of a history, empty without evaluations."""
    if not evaluations:
        return {}
    return {
        "epoch": [evaluation.epoch for evaluation in evaluations],
        "split": [evaluation.split for evaluation in evaluations],
        "loss": [NAN] * len(evaluations),
        "accuracy": [evaluation.accuracy for evaluation in evaluations],
        "learning_rate": [NAN] * len(evaluations),
    }
