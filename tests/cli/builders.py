"""Records and terminals for the tests of what commands print."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from shipbench.record import RunRecord
from shipbench.results.store import Store


def make_record(run_id: str, **changes: object) -> RunRecord:
    """Return a finished run of SHIP on dtd with ``changes``."""
    record = RunRecord(
        run_id=run_id,
        status="done",
        method="ship",
        task="dtd",
        group="Natural",
        suite="vtab-1k",
        seed=0,
        recipe="default",
        protocol="final",
        settings={"lr": 0.001},
        backbone="vit",
        backbone_sha256="b" * 64,
        checkpoint="",
        image_size=224,
        data_fingerprint="d" * 64,
        image_format="png",
        num_classes=47,
        precision="fp32",
        device="cpu",
        final_test_acc=0.625,
        chance_acc=0.25,
    )
    return replace(record, **changes)


def results_folder(root: Path, records: Iterable[RunRecord]) -> Path:
    """Write records into a results folder and return it."""
    for record in records:
        Store(root).write(record)
    return root


def as_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Let standard output pass for a terminal of the given width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
