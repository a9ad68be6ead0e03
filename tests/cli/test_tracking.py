"""``--track``: refusals before anything runs, runs that trackers follow, and a process that a tracker cannot hold."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from shipbench import RunSpec, load_results
from shipbench.runs import checkpoints
from shipbench.runtime import plug_ins
from shipbench.runtime.version import VERSION
from tests.cli.builders import plug_in
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree
from tests.training.interruptions import interrupted

TINY = ("--backbone", "test_vit", "--checkpoint", "random", "--set", "image_size=64", "--epochs", "2", "--tasks", "dtd")
# The command line with one more command, which trains nothing, and little patience.
HANGING = """
import threading
from pathlib import Path

from shipbench.cli import app, main
from shipbench.events import EpochDone, Started
from shipbench.runtime.console import say
from shipbench.trackers.interface import TrackedRun
from shipbench.trackers.relay import Relay

class Tracker:
    where = "nowhere"

    def open(self, run):
        print("opened")
        # A thread that is not a daemon keeps Python from ending.
        thread = threading.Thread(target=threading.Event().wait, daemon=False)
        thread.start()
        thread.join()

@app.command()
def follow():
    with Relay({"it": Tracker()}, {"a1": TrackedRun("a1", "a run")}, Path("r"), say, grace=0.1) as relay:
        relay(Started("a1"))
        relay(EpochDone("a1", 0, 1, 0.5, 0.1, 2.0, 100))

main()
"""

RECORDING = """
import json

class Tracker:
    where = "in a file"

    def __init__(self, options):
        self.file = options.results / "calls.json"
        self.calls = []

    def check(self):
        pass

    def open(self, run):
        self.accuracy_name = run.accuracy_name
        self.keep("open", run.run_id, run.title, dict(run.config), run.fresh)
        return self

    def log(self, epoch, values):
        self.keep("log", epoch, values)

    def note(self, text):
        pass

    def finish(self, outcome):
        self.keep("finish", outcome.record.run_id)

    def keep(self, *call):
        self.calls.append(call)
        self.file.write_text(json.dumps(self.calls))
"""
RAISING = """
class Tracker:
    def __init__(self, options):
        pass

    def check(self):
        pass

    @property
    def where(self):
        raise OSError("no place")

    def open(self, run):
        return self

    def __getattr__(self, name):
        return lambda *arguments: None
"""
BROKEN = """
class Tracker:
    def __init__(self, options):
        raise ValueError("no settings")
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
    monkeypatch.setattr(plug_ins, "find_spec", lambda module: None)
    outcome = shipbench(*line, "--track", name)
    assert outcome.code == 2
    assert outcome.err.strip() == (
        f"error: --track {name} needs a package that is not installed; run: pip install 'shipbench[{name}]'"
    )
    assert not (tmp_path / "r").exists()


class Keyboard(io.StringIO):
    """Standard input of a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [False, True])
def test_wandb_without_an_account(
    shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    wandb = pytest.importorskip("wandb", reason="the extra shipbench[wandb] is not installed")
    # Another test may have set it up offline.
    wandb.teardown()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "online")
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    if terminal:
        monkeypatch.setenv("TERM", "xterm")
        # The library's third choice is not to log in.
        monkeypatch.setattr(sys, "stdin", Keyboard("3\n"))
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    outcome = shipbench(*line, "--track", "wandb")
    assert outcome.code == 2
    assert outcome.err == ("error: --track wandb is not logged in; run 'wandb login', or set WANDB_MODE=offline\n")


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


def test_a_tracker_learns_every_run_and_one_that_raises_ends_none(
    shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in (("recording", RECORDING), ("raising", RAISING), ("broken", BROKEN)):
        monkeypatch.syspath_prepend(plug_in(tmp_path / name, name, code))
    outcome = shipbench(*line, "--track", "broken")
    assert outcome.code == 2
    assert outcome.err.strip() == (
        "error: --track broken cannot be used (ValueError: no settings); leave it out, or repair the tracker"
    )
    assert not (tmp_path / "r").exists()

    line = (*line, "--seeds", "3", "--track", "recording,raising")
    outcome = shipbench(*line)
    assert outcome.code == 0, outcome.err
    assert "recording: in a file" in outcome.err
    assert outcome.err.count("raising failed (no place); nothing more is sent there") == 1
    (record,) = load_results(tmp_path / "r").to_dict("records")
    (_, run_id, _, config, fresh), *_, (_, finished) = calls = json.loads((tmp_path / "r" / "calls.json").read_text())
    assert (run_id, finished, fresh) == (record["run_id"], record["run_id"], True)
    names = ("method", "task", "suite", "seed", "protocol", "backbone_sha256", "data_fingerprint", "cfg.epochs")
    assert {name: config[name] for name in names} == {name: record[name] for name in names}
    assert [(call[1], "test_acc" in call[2]) for call in calls[1:-1]] == [(1, False), (2, True)]
    assert f"{run_id} [1/1] " in outcome.err

    def fail(*_: object) -> None:
        raise OSError("no such image")

    # With --force, a run that fails before its first epoch is a new curve too.
    monkeypatch.setattr("shipbench.engine.attempt.prepare", fail)
    assert shipbench(*line, "--force").code == 1
    (*_, fresh), (_, finished) = json.loads((tmp_path / "r" / "calls.json").read_text())
    assert (fresh, finished) == (True, run_id)


@pytest.mark.parametrize(
    ("release", "fresh", "epochs"), [(VERSION, False, [2]), ("0.0.1", True, [1, 2])], ids=["continues", "starts over"]
)
def test_a_run_is_fresh_to_trackers_if_its_checkpoint_is_not_used(
    shipbench: Shipbench,
    line: tuple[object, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    release: str,
    fresh: bool,
    epochs: list[int],
) -> None:
    monkeypatch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", "0")
    monkeypatch.syspath_prepend(plug_in(tmp_path / "recording", "recording", RECORDING))
    overrides = {"image_size": 64, "epochs": 2}
    spec = RunSpec(
        "linear", "dtd", data=tmp_path / "data", backbone="test_vit", checkpoint="random", overrides=overrides
    )
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "VERSION", release)
        interrupted(spec, tmp_path / "r", 1)
    assert shipbench(*line, "--track", "recording").code == 0
    opened, *logged, _ = json.loads((tmp_path / "r" / "calls.json").read_text())
    assert opened[-1] is fresh
    assert [call[1] for call in logged] == epochs


def test_a_hanging_tracker_does_not_hold_the_process() -> None:
    command = [sys.executable, "-c", HANGING, "follow"]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert "it did not finish within 0.1 s; nothing more is sent there" in outcome.stderr
    assert "opened" not in outcome.stdout
