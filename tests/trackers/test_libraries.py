"""Every tracker with its real library: an interrupted run continues its curve, and what was sent is read back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from shipbench.errors import InputError
from shipbench.events import Finished, Started
from shipbench.results.store import Store
from shipbench.trackers.interface import Tracker, TrackerOptions
from shipbench.trackers.mlflow import RUN_ID, MlflowTracker
from shipbench.trackers.registry import require_library
from shipbench.trackers.tensorboard import TensorboardTracker
from shipbench.trackers.trackio import TrackioTracker
from shipbench.trackers.wandb import WandbTracker
from tests.trackers.builders import (
    CURVE,
    RUN,
    epochs,
    failed_from_the_start,
    interrupted_then_finished,
    relay,
    stored_record,
)

PLACES = (
    "WANDB_MODE",
    "WANDB_DIR",
    "WANDB_PROJECT",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "TRACKIO_PROJECT",
    "TRACKIO_SPACE_ID",
    "TRACKIO_SERVER_URL",
)


@pytest.mark.parametrize(
    ("make", "environment", "where"),
    [
        (
            WandbTracker,
            {"WANDB_MODE": "offline"},
            "wandb sync '{folder}'/wandb/offline-*",
        ),
        (
            WandbTracker,
            {"WANDB_MODE": "dryrun", "WANDB_DIR": "elsewhere"},
            "wandb sync elsewhere/wandb/offline-*",
        ),
        # No run has been opened.
        (WandbTracker, {"WANDB_PROJECT": "mine"}, "project 'mine'"),
        (MlflowTracker, {}, "experiment 'shipbench' at sqlite:///mlflow.db"),
        (
            MlflowTracker,
            {"MLFLOW_TRACKING_URI": "http://h:1", "MLFLOW_EXPERIMENT_NAME": "mine"},
            "experiment 'mine' at http://h:1",
        ),
        (TensorboardTracker, {}, "tensorboard --logdir '{folder}/tensorboard'"),
        (TrackioTracker, {}, "trackio show --project shipbench"),
        (TrackioTracker, {"TRACKIO_PROJECT": "my $runs"}, "trackio show --project 'my $runs'"),
        (TrackioTracker, {"TRACKIO_SPACE_ID": "me/curves"}, "project 'shipbench' in the Space me/curves"),
        (
            TrackioTracker,
            {"TRACKIO_SERVER_URL": "https://h.test:1/?write_token=secret"},
            "project 'shipbench' at https://h.test:1/",
        ),
    ],
)
def test_where_runs_go_is_told_as_one_would_look_at_them(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    make: Callable[[TrackerOptions], Tracker],
    environment: dict[str, str],
    where: str,
) -> None:
    for name in PLACES:
        monkeypatch.setenv(name, environment.get(name, ""))
    folder = tmp_path / "my results"
    assert make(TrackerOptions(folder)).where == where.format(folder=folder)


def test_a_folder_with_the_name_of_a_library_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert find_spec("no_such_tracker") is not None
    with pytest.raises(InputError, match="needs a package that is not installed"):
        require_library("no_such_tracker", "it")


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra shipbench[tensorboard] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted_then_finished(partial(TensorboardTracker, TrackerOptions(tmp_path)), tmp_path)
    folder = tmp_path / "tensorboard" / "a1"
    events: Any = EventAccumulator(str(folder))
    events.Reload()
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars("test_acc")] == CURVE
    assert events.Scalars("final/final_test_acc")[0].value == pytest.approx(0.75)
    assert events.Tags()["images"] == ["figures/affinity-vtab-1k"]
    assert b"cfg.lr" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    assert (folder / "runs.parquet").read_bytes() == Store(tmp_path).path("runs", "a1").read_bytes()

    failed_from_the_start(TensorboardTracker(TrackerOptions(tmp_path)), tmp_path)
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("test_acc")] == [1]
    texts = [events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0] for name in ("outcome", "notes")]
    assert texts == [b"out of memory", b"11 levels\n\n12 levels"]


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra shipbench[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    read_back_from_mlflow(tmp_path, f"file:{tmp_path}/mlruns")


@pytest.mark.parametrize("failed", [True, False], ids=["failed before", "interrupted before"])
def test_mlflow_has_a_new_run_for_one_that_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: bool
) -> None:
    pytest.importorskip("mlflow", reason="the extra shipbench[mlflow] is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    lines: list[str] = []
    end = [Finished("a1", stored_record(tmp_path, status="failed", error="out of memory"))] if failed else []
    for events in ([*epochs(1, 2), *end], epochs(1, 1), epochs(2, 3)):
        with relay(MlflowTracker(TrackerOptions(tmp_path)), tmp_path, lines) as listen:
            for event in (Started("a1"), *events):
                listen(event)
    client = MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("shipbench").experiment_id], order_by=["start_time ASC"])
    histories = [client.get_metric_history(run.info.run_id, "test_acc") for run in runs]
    assert [[(metric.step, metric.value) for metric in history] for history in histories] == [CURVE[:2], CURVE]
    assert [run.info.status for run in runs] == ["FAILED" if failed else "KILLED", "KILLED"]


@pytest.mark.parametrize("uri", ["file:{folder}/mlruns", "{folder}/mlruns", "localhost:5000", "htp://localhost:5000"])
def test_mlflow_refuses_an_address_that_it_cannot_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    pytest.importorskip("mlflow", reason="the extra shipbench[mlflow] is not installed")
    place = uri.format(folder=tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    with pytest.raises(InputError, match=f"cannot write to {re.escape(place)} .*; set MLFLOW_TRACKING_URI"):
        MlflowTracker(TrackerOptions(tmp_path)).check()


def test_mlflow_refuses_a_database_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra shipbench[mlflow] is not installed")
    monkeypatch.setattr("shipbench.trackers.mlflow.find_spec", lambda name: None)
    for uri in ("", f"sqlite:///{tmp_path}/db", "mysql+pymysql://h/runs"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(InputError, match="install the package mlflow for a database"):
            MlflowTracker(TrackerOptions(tmp_path)).check()


def test_mlflow_says_that_it_continues_an_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra shipbench[mlflow] is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("shipbench.trackers.mlflow.find_spec", lambda name: object())
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracker = MlflowTracker(TrackerOptions(tmp_path))
    tracker.check()
    assert tracker.where == f"experiment 'shipbench' at file:{tmp_path}/mlruns"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: f"file:{tmp_path}/other/mlruns")
    with pytest.raises(InputError, match=r"cannot write to file:.*/mlruns"):
        MlflowTracker(TrackerOptions(tmp_path)).check()


def test_mlflow_beside_a_process_that_creates_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra shipbench[mlflow] is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    create = MlflowClient.create_experiment

    def create_twice(client: MlflowClient, name: str) -> str:
        create(client, name)
        return create(client, name)

    monkeypatch.setattr(MlflowClient, "create_experiment", create_twice)
    run = replace(RUN, config={"note": "x" * 6001})
    opened = MlflowTracker(TrackerOptions(tmp_path)).open(run)
    stored = opened.client.get_run(opened.handle).data
    # Servers refuse longer ones.
    assert (stored.tags[RUN_ID], stored.params) == ("a1", {"note": "x" * 500})


def test_mlflow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # mlflow-skinny has the client alone.
    skip_without("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--backend-store-uri", f"sqlite:///{tmp_path}/db", "--artifacts-destination", f"{tmp_path}/artifacts"]
    line = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *place]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            wait_for(server, port)
            uri = f"http://127.0.0.1:{port}"
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            read_back_from_mlflow(tmp_path, uri)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    """Return when the port accepts connections; fail if the server ends before, or listens to none for five minutes."""
    deadline = time.monotonic() + 300
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail("the MLflow server did not start")


def read_back_from_mlflow(results: Path, uri: str) -> None:
    from mlflow.tracking import MlflowClient

    interrupted_then_finished(partial(MlflowTracker, TrackerOptions(results)), results)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("shipbench")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags[RUN_ID] == "a1"
    assert run.data.tags["mlflow.note.content"] == "12 semantic levels"
    assert run.data.params["cfg.lr"] == "0.01"
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/final_test_acc"] == 0.75
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "test_acc")] == CURVE
    assert [file.path for file in client.list_artifacts(run.info.run_id, "runs")] == ["runs/a1.parquet"]
    assert client.list_artifacts(run.info.run_id, "figures")

    tracker = MlflowTracker(TrackerOptions(results))
    failed_from_the_start(tracker, results)
    fresh, first = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    assert first.info.run_id == run.info.run_id
    assert (fresh.info.status, fresh.data.tags["shipbench.error"]) == ("FAILED", "out of memory")
    assert fresh.data.tags["mlflow.note.content"] == "11 levels\n\n12 levels"
    assert [metric.step for metric in client.get_metric_history(fresh.info.run_id, "test_acc")] == [1]
    resumed = tracker.open(RUN)
    assert client.get_run(fresh.info.run_id).info.status == "RUNNING"
    resumed.close()
    assert client.get_run(fresh.info.run_id).info.status == "KILLED"


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("postgresql://me:s%40cret@db.test:5432/runs?sslmode=off", "postgresql://db.test:5432/runs?sslmode=off"),
        ("https://token@mlflow.test/a", "https://mlflow.test/a"),
        ("mysql://me:s#c/r?t[@db.test/runs", "mysql://db.test/runs"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_mlflow_says_where_runs_are_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, place: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert MlflowTracker(TrackerOptions(tmp_path)).where == f"experiment 'shipbench' at {place}"


def skip_without(package: str) -> None:
    """Skip a test whose package is not installed. One that is installed, but cannot be imported, fails the test."""
    try:
        version(package)
    except PackageNotFoundError:
        pytest.skip(f"the package {package} is not installed; make trackers installs it")


def test_what_trackio_receives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the library, which needs an older Pillow than most of the others."""
    library = Mock(Image=lambda image: "an image")
    monkeypatch.setitem(sys.modules, "trackio", library)
    monkeypatch.setenv("TRACKIO_PROJECT", "mine")
    tracker, handle, artifact = TrackioTracker(TrackerOptions(tmp_path)), library.init(), library.Artifact()
    tracker.open(RUN)
    assert library.init.call_args.kwargs == {
        "project": "mine",
        "name": "a1",
        "config": {"title": RUN.title, **RUN.config},
        "resume": "allow",
        "embed": False,
    }
    failed_from_the_start(tracker, tmp_path)
    assert library.init.call_args.kwargs["resume"] == "never"
    assert [call.args[0] for call in handle.log.call_args_list[:3]] == [
        {"note": "11 levels"},
        {"note": "12 levels"},
        {"test_acc": 0.01},
    ]
    assert [call.kwargs["step"] for call in handle.log.call_args_list] == [0, 0, 1, 1]
    end = handle.log.call_args.args[0]
    assert (end["status"], end["error"], end["final/final_test_acc"]) == ("failed", "out of memory", 0.75)
    files = {call.kwargs["name"]: Path(call.args[0]) for call in artifact.add_file.call_args_list}
    assert files == {name: tmp_path / name for name in ("runs/a1.parquet", "predictions/a1.parquet")}
    handle.log_artifact.assert_called_once_with(artifact)
    handle.finish.assert_called_once_with()


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without("trackio")
    script = (
        "import sys; from functools import partial; from pathlib import Path;"
        "from shipbench.trackers.interface import TrackerOptions;"
        "from shipbench.trackers.trackio import TrackioTracker;"
        "from tests.trackers.builders import interrupted_then_finished;"
        "results = Path(sys.argv[1]);"
        "interrupted_then_finished(partial(TrackioTracker, TrackerOptions(results)), results);"
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage;"
        "(run,) = trackio.Api().runs('shipbench');"
        "logs = SQLiteStorage.get_logs('shipbench', run.name);"
        "print(json.dumps([run.name, run.config['cfg.lr'], logs]))"
    )
    # Trackio chooses its folder when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    outcome = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    name, rate, logs = json.loads(outcome.stdout)
    assert (name, rate) == ("a1", 0.01)
    assert [(log["step"], log["test_acc"]) for log in logs if "test_acc" in log] == [*CURVE[:2], *CURVE[1:]]
    assert [log["final/final_test_acc"] for log in logs if "final/final_test_acc" in log] == [0.75]
    assert any("figures/" in key for log in logs for key in log)
