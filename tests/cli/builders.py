"""Records and terminals for the tests of what commands print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shipbench import load_results
from shipbench.record import RunRecord
from shipbench.results.store import RunTables, Store
from tests.conftest import Shipbench
from tests.results.test_store import make_record as finished_record

IMAGES = 400
TINY = ("--backbone", "test_vit", "--checkpoint", "random", "--set", "image_size=64", "--epochs", "1")
"""Options of a run that takes a second."""


def make_record(run_id: str, **changes: object) -> RunRecord:
    """Return a finished run of SHIP on dtd, better than chance, with ``changes``."""
    return finished_record(**{"run_id": run_id, "settings": {"lr": 0.001}, "chance_acc": 0.25, **changes})


def results_folder(root: Path, records: Iterable[RunRecord]) -> Path:
    """Write records into a results folder and return it."""
    for record in records:
        Store(root).write(record)
    return root


def run_of(study: Path, method: str) -> str:
    """Return the id of the only run of a method in the folder ``r`` of ``study``."""
    frame = load_results(study / "r")
    return str(frame.loc[frame["method"] == method, "run_id"].item())


def as_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Let standard output pass for a terminal of the given width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def write_run(root: Path, run_id: str, correct: int | None, **changes: Any) -> None:
    """Store a run that classifies the first ``correct`` of 400 images correctly; None stores no predictions."""
    accuracy = {} if correct is None else {"final_test_acc": correct / IMAGES}
    record: RunRecord = make_record(run_id, **{**accuracy, **changes})
    labels = np.arange(IMAGES) % 4
    predicted = np.where(np.arange(IMAGES) < (correct or 0), labels, (labels + 1) % 4)
    columns = {"index": np.arange(IMAGES), "label": labels, "predicted": predicted, "confidence": np.full(IMAGES, 0.5)}
    Store(root).write(record, RunTables(predictions={} if correct is None else columns))


def two_folders(tmp_path: Path, before: int, after: int, seeds: Sequence[int] = (0, 1)) -> tuple[Path, Path]:
    """Store runs that classify ``before`` and ``after`` of 400 images correctly in the folders ``a`` and ``b``."""
    for seed in seeds:
        write_run(tmp_path / "a", f"a{seed}", before, seed=seed)
        write_run(tmp_path / "b", f"b{seed}", after, seed=seed)
    return tmp_path / "a", tmp_path / "b"


def compared(shipbench: Shipbench, *arguments: object) -> dict[str, Any]:
    """Return what ``shipbench diff --json`` prints."""
    content: dict[str, Any] = json.loads(shipbench("diff", *arguments, "--json").out)
    return content


def plug_in(folder: Path, name: str, code: str) -> Path:
    """Install the tracker ``name`` with this code into a folder of packages, and return the folder."""
    metadata = folder / f"{name}-1.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{name}_tracker.py").write_text(code)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[shipbench.trackers]\n{name} = {name}_tracker:Tracker\n")
    return folder
