"""Whole runs in bf16, whose frozen weights are cast once: the records of runs in which autocast casts at every use."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from shipbench import load_results
from shipbench.engine import stacked as stacked_attempt
from shipbench.results.loading import load_history, load_predictions
from shipbench.results.store import Store
from shipbench.runs import preparation
from tests.conftest import TIMES, Shipbench
from tests.data.builders import vtab_tree

MODEL = ("--backbone", "test_vit", "--checkpoint", "random", "--epochs", "2", "--precision", "bf16")
SETTINGS = ("--set", "image_size=64", "--set", "drop_path=0.2", "--set", "batch_size=4", "--set", "eval_every=1")
# ``--engine local`` in this process, so that the test can replace what a run calls.
GRID = ("--method", "ship,vpt-deep,lora,linear,full", "--seeds", "0-1", "--stack", "2", "--jobs", "1")


def test_records_equal_those_of_autocast_alone(
    shipbench: Shipbench, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    line = ("run", *MODEL, *SETTINGS, *GRID, "--tasks", "dtd", "--data", data)
    assert shipbench(*line, "--results", tmp_path / "once").code == 0
    for module in (preparation, stacked_attempt):
        monkeypatch.setattr(module, "cast_frozen_weights", lambda model, compute: None)
    assert shipbench(*line, "--results", tmp_path / "always").code == 0
    one, two = load_results(tmp_path / "once"), load_results(tmp_path / "always")
    assert len(one) == 10
    assert set(one["stacked_runs"]) == {1, 2}
    pd.testing.assert_frame_equal(one.drop(columns=TIMES), two.drop(columns=TIMES), rtol=0, atol=0)
    for load in (load_history, load_predictions):
        ours, theirs = (load(tmp_path / folder, one["run_id"]) for folder in ("once", "always"))
        pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=0)
    weights = [Store(tmp_path / "once").path("weights", run_id) for run_id in one["run_id"]]
    stored = [load_file(path) for path in weights if path.exists()]
    assert {value.dtype for tensors in stored for value in tensors.values()} == {torch.float32}
