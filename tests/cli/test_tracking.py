"""``--track``: refusals before anything runs, runs that trackers follow, and a process that a tracker cannot hold."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench import load_results
from shipbench.trackers import registry
from tests.conftest import Outcome
from tests.data.builders import vtab_tree

Shipbench = Callable[..., Outcome]
TINY = ("--backbone", "test_vit", "--checkpoint", "random", "--set", "image_size=64", "--epochs", "2", "--tasks", "dtd")
PLUG_IN = """
import threading

class Tracker:
    where = "nowhere"

    def __init__(self, options):
        # A thread that is not a daemon keeps Python from ending.
        self.thread = threading.Thread(target=threading.Event().wait)

    def check(self):
        print("checked")

    def open(self, run):
        print("opened")
        self.thread.start()
        self.thread.join()
"""


@pytest.fixture
def line(tmp_path: Path, cache: Path) -> tuple[object, ...]:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    return ("run", "--method", "linear", *TINY, "--data", data, "--results", tmp_path / "r")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("wand", "unknown tracker 'wand' (did you mean 'wandb'?); choose from mlflow, tensorboard, trackio, wandb"),
        (",", "--track is empty; name one or more of mlflow, tensorboard, trackio, wandb"),
    ],
)
def test_wrong_names(names: str, message: str, shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    outcome = shipbench(*line, "--track", names)
    assert (outcome.code, outcome.err.strip()) == (2, f"error: {message}")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard", "trackio"])
def test_a_missing_library_names_its_extra(
    name: str, shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda module: None)
    outcome = shipbench(*line, "--track", name)
    assert outcome.code == 2
    assert outcome.err.strip() == (
        f"error: --track {name} needs a package that is not installed; run: pip install 'shipbench[{name}]'"
    )
    assert not (tmp_path / "r").exists()


def test_wandb_without_an_account(
    shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="the extra shipbench[wandb] is not installed")
    # Another test may have set it up offline.
    wandb.teardown()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "online")
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    outcome = shipbench(*line, "--track", "wandb")
    assert outcome.code == 2
    assert "run 'wandb login', or set WANDB_MODE=offline" in outcome.err


def test_mlflow_without_a_place(
    shipbench: Shipbench, line: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="the extra shipbench[mlflow] is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("shipbench.trackers.mlflow.find_spec", lambda module: None)
    outcome = shipbench(*line, "--track", "mlflow")
    assert outcome.code == 2
    assert "--track mlflow has no place to write to; set MLFLOW_TRACKING_URI to a server" in outcome.err


def test_a_run_with_event_files(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra shipbench[tensorboard] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outcome = shipbench(*line, "--track", "tensorboard")
    assert outcome.code == 0, outcome.err
    assert f"tensorboard: tensorboard --logdir {tmp_path / 'r' / 'tensorboard'}" in outcome.err
    (record,) = load_results(tmp_path / "r").to_dict("records")
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard" / str(record["run_id"])))
    events.Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2]
    assert events.Scalars("test_acc")[-1].value == pytest.approx(record["final_test_acc"])
    assert shipbench(*line, "--track", "tensorboard").code == 0


def test_a_hanging_tracker_does_not_hold_the_process(line: tuple[object, ...], tmp_path: Path) -> None:
    plug_in = tmp_path / "plug-in"
    (plug_in / "hanging-1.dist-info").mkdir(parents=True)
    (plug_in / "hanging_tracker.py").write_text(PLUG_IN)
    (plug_in / "hanging-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging\nVersion: 1\n")
    (plug_in / "hanging-1.dist-info" / "entry_points.txt").write_text(
        "[shipbench.trackers]\nhanging = hanging_tracker:Tracker\n"
    )
    command = [sys.executable, "-m", "shipbench", *map(str, line), "--track", "hanging", "--device", "cpu"]
    before = time.monotonic()
    outcome = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(plug_in)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "hanging did not finish within 5 s; nothing more is sent there" in outcome.stderr
    assert "opened" not in outcome.stdout
    assert time.monotonic() - before < 100
    assert list(load_results(tmp_path / "r")["status"]) == ["done"]
