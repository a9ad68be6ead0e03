"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import settings as hypothesis_settings

from shipbench.cli import main

# Columns in which a run that is repeated may differ.
TIMES = [
    "created",
    "train_seconds",
    "eval_seconds",
    "train_images_per_second",
    "eval_images_per_second",
    "peak_memory_bytes",
]

# Examples are the same in every run, and none is judged by how long it took.
hypothesis_settings.register_profile("shipbench", deadline=None, derandomize=True, database=None)
hypothesis_settings.load_profile("shipbench")


@pytest.fixture(scope="session", autouse=True)
def _two_threads_at_most() -> None:
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, torch.get_num_threads()))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for this test alone."""
    monkeypatch.setenv("SHIPBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@dataclass(frozen=True)
class Outcome:
    """What a command line left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def shipbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``shipbench ARGUMENTS...`` in this process, through the same entry point as the console script."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["shipbench", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call
