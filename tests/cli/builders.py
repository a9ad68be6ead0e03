"""Records and terminals for the tests of what commands print."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from shipbench import load_results
from shipbench.record import RunRecord
from shipbench.results.store import Store
from tests.results.test_store import make_record as finished_record

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
