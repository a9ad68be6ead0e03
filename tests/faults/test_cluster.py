"""A real Dask scheduler with workers on this machine: the records of a local grid, even if a worker dies."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from shipbench.cli.progress import PlainDisplay
from shipbench.engine import supervisor
from shipbench.engine.executors import dask as dask_engine
from shipbench.engine.executors.registry import EngineOptions
from shipbench.engine.supervisor import execute_plan
from shipbench.errors import ShipbenchError
from shipbench.events import Event, Note
from shipbench.planning.plan import Plan, PlannedRun, State
from shipbench.record import RunRecord
from shipbench.results.loading import load_results
from shipbench.spec import RunSpec
from tests.conftest import Outcome
from tests.faults.grids import Grid, differences, leftovers
from tests.faults.test_workers import CUDA_ERROR, Work, begun, lose, without_training
from tests.forks import enter, start_fork

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX systems do")


@pytest.fixture(scope="module")
def cluster(undisturbed: Grid) -> Iterator[Any]:
    import dask

    settings = {
        "distributed.nanny.environ": undisturbed.all_environment,
        "distributed.worker.multiprocessing-method": "forkserver",
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
    ):
        yield cluster


def test_a_cluster_that_loses_a_worker_makes_the_same_records(undisturbed: Grid, cluster: Any, tmp_path: Path) -> None:
    options = ("--engine", "dask", "--scheduler", cluster.scheduler_address)
    grid = replace(undisturbed, results=tmp_path / "results", options=options)
    command = grid.start()
    command.wait_for("loss")
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        busy = [worker for worker, tasks in client.processing().items() if tasks]
        pids = client.run(os.getpid, workers=busy[:1])
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    assert command.wait() == 0, grid.log.read_text()
    assert differences(grid.results, undisturbed.results) == [], grid.log.read_text()
    assert leftovers(grid.results) == []


def test_a_grid_on_a_cluster_can_be_stopped(undisturbed: Grid, cluster: Any, tmp_path: Path) -> None:
    options = ("--engine", "dask", "--scheduler", cluster.scheduler_address)
    grid = replace(undisturbed, results=tmp_path / "r", options=options, method="vpt-deep", epochs=200)
    command = grid.start()
    command.wait_for("epoch 20/200")
    command.send(signal.SIGTERM)
    assert command.wait(30) == 143
    assert "the same command continues from there" in grid.log.read_text()
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        while any(client.run(lambda: dask_engine._ONE_AT_A_TIME.locked()).values()):
            time.sleep(0.1)
    # The worker has given its run up.
    assert not list((grid.results / "runs").glob("*.parquet"))


@dataclass(frozen=True)
class SmallCluster:
    """A scheduler process, and worker processes that are started and killed individually."""

    folder: Path
    environment: dict[str, str]
    processes: list[Any] = field(default_factory=list)

    @property
    def scheduler(self) -> Any:
        return self.processes[0]

    @property
    def address(self) -> str:
        return str(json.loads(self._file.read_text())["address"])

    @property
    def _file(self) -> Path:
        return self.folder / "scheduler.json"

    def start_scheduler(self) -> None:
        process = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        while not self._file.exists():
            assert process.is_alive()
            time.sleep(0.05)

    def start_worker(self) -> None:
        self._start("worker", "--nthreads", "1", "--no-nanny", "--death-timeout", "10")

    def _start(self, part: str, *options: str) -> Any:
        line = ["--scheduler-file", str(self._file), "--no-dashboard", *options]
        process = start_fork(_dask, part, line, self.environment, self.folder)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.join()


def _dask(part: str, line: list[str], environment: dict[str, str], folder: Path) -> None:
    """Be ``dask scheduler`` or ``dask worker``."""
    enter(environment, folder / f"dask-{part}.log")
    os.chdir(folder)
    import_module(f"distributed.cli.dask_{part}").main(line)


@pytest.fixture
def small_cluster(undisturbed: Grid, tmp_path: Path) -> Iterator[SmallCluster]:
    """A scheduler with one worker."""
    cluster = SmallCluster(tmp_path, undisturbed.all_environment)
    try:
        cluster.start_scheduler()
        cluster.start_worker()
        yield cluster
    finally:
        cluster.close()


def test_a_cluster_of_one_worker_executes_the_runs(
    undisturbed: Grid, small_cluster: SmallCluster, tmp_path: Path
) -> None:
    options = ("--engine", "dask", "--scheduler", small_cluster.address)
    grid = replace(undisturbed, results=tmp_path / "r", options=options, method="linear,vpt-deep")
    command = grid.start()
    command.wait_for("loss")
    with distributed.Client(small_cluster.address, set_as_default=False) as client:
        assert any(client.processing().values())
    assert command.wait() == 0, grid.said
    whole = load_results(undisturbed.results).set_index("run_id")
    frame = load_results(grid.results)
    assert list(frame["final_test_acc"]) == list(whole.loc[frame["run_id"], "final_test_acc"])


def test_a_cluster_without_workers_is_noted_and_continues_with_a_new_one(
    undisturbed: Grid, small_cluster: SmallCluster, tmp_path: Path
) -> None:
    options = ("--engine", "dask", "--scheduler", small_cluster.address)
    grid = replace(undisturbed, results=tmp_path / "r", options=options)
    command = grid.start()
    command.wait_for("loss")
    small_cluster.processes[-1].kill()
    command.wait_for("the cluster has no worker left; waiting for one")
    small_cluster.start_worker()
    command.wait_for("a worker has joined the cluster; continuing")
    assert command.wait() == 0, grid.said
    assert differences(grid.results, undisturbed.results) == [], grid.said
    assert leftovers(grid.results) == []


def test_runs_wait_for_a_worker_whenever_they_are_handed_out(
    small_cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def on_worker(run: PlannedRun, results: Path, topic: str) -> None:
        (results / run.run_id).touch()

    said: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Note):
            said.append(event.text.split(";")[0])
            if "has no worker" in event.text:
                small_cluster.start_worker()

    monkeypatch.setattr(dask_engine, "_on_worker", on_worker)
    runs = tuple(PlannedRun(RunSpec("linear", "dtd"), name, State.TO_DO) for name in "ab")
    executor = dask_engine.DaskExecutor(EngineOptions(scheduler=small_cluster.address))
    for run in runs:
        small_cluster.processes[-1].kill()
        with distributed.Client(small_cluster.address, set_as_default=False) as client:
            while client.nthreads():
                time.sleep(0.05)
        executor.execute([run], Plan(runs, runs), tmp_path, emit)
        assert (tmp_path / run.run_id).exists()
    assert said == ["the cluster has no worker yet", "a worker has joined the cluster"] * 2
    small_cluster.scheduler.kill()
    small_cluster.scheduler.join()
    monkeypatch.setattr(dask_engine, "_TIMEOUT", "1s")
    with pytest.raises(ShipbenchError, match="is gone; finished runs and") as caught:
        executor.execute(runs, Plan(runs, runs), tmp_path, emit)
    assert caught.value.exit_code == 1


@pytest.fixture
def execute(
    small_cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Work], list[RunRecord]]:
    """Execute runs a, b and c on two workers with a GPU each, with ``Work`` in place of training."""
    small_cluster.start_worker()
    with distributed.Client(small_cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2)
    monkeypatch.setattr(supervisor, "_POLL_SECONDS", 0.1)

    def execute(work: Work) -> list[RunRecord]:
        def on_worker(run: PlannedRun, results: Path, topic: str) -> None:
            without_training(work, results)
            dask_engine._on_worker(run, results, topic)

        monkeypatch.setattr(dask_engine, "_on_worker", on_worker)
        spec = RunSpec("linear", "dtd", device="cuda:0", precision="fp32")
        runs = tuple(PlannedRun(spec, name, State.TO_DO) for name in "abc")
        executor = dask_engine.DaskExecutor(EngineOptions(scheduler=small_cluster.address))
        return execute_plan(Plan(runs, runs), tmp_path / "r", executor, PlainDisplay(runs))

    (tmp_path / "r").mkdir()
    return execute


def test_a_run_that_loses_its_gpu_is_repeated_by_another_worker(
    execute: Callable[[Work], list[RunRecord]], tmp_path: Path
) -> None:
    def work(run: PlannedRun, results: Path) -> None:
        if run.run_id == "a" and begun(results, "a") == 1:
            lose(run.spec.device)

    assert [record.status for record in execute(work)] == ["done"] * 3
    assert [begun(tmp_path / "r", name) for name in "abc"] == [2, 1, 1]
    assert not list((tmp_path / "r" / "claims").iterdir())


def test_a_worker_whose_gpu_is_gone_leaves_the_cluster(
    execute: Callable[[Work], list[RunRecord]],
    small_cluster: SmallCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with distributed.Client(small_cluster.address, set_as_default=False) as client:
        broken, works = client.run(os.getpid)
        client.run(lose, "cuda:0", workers=[broken], on_error="ignore")
        records = execute(lambda run, results: None)
        assert [record.status for record in records] == ["done"] * 3
        assert list(client.scheduler_info()["workers"]) == [works]
    assert [begun(tmp_path / "r", name) for name in "abc"] == [1, 1, 1]
    assert f"does not work ({CUDA_ERROR}); continuing without it" in capsys.readouterr().err


def _shut_down(cluster: SmallCluster) -> None:
    distributed.Client(cluster.address, set_as_default=False).shutdown()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda cluster: cluster.scheduler.kill(), id="killed"),
        pytest.param(lambda cluster: cluster.scheduler.terminate(), id="terminated"),
        pytest.param(_shut_down, id="shut-down"),
    ],
)
def test_a_scheduler_that_goes_away_is_reported(
    undisturbed: Grid, small_cluster: SmallCluster, tmp_path: Path, end: Callable[[SmallCluster], None]
) -> None:
    address = small_cluster.address
    options = ("--engine", "dask", "--scheduler", address)
    grid = replace(undisturbed, results=tmp_path / "r", options=options, method="vpt-deep", epochs=200)
    command = grid.start()
    command.wait_for("epoch 20/200")
    end(small_cluster)
    assert command.wait(60) == 1, grid.said
    assert f"the Dask scheduler at {address} is gone" in grid.said
    assert "Traceback" not in grid.said


LINE = ("run", "--method", "linear", "--tasks", "demo-tiny")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--engine", "dask"), "belong together"),
        (("--scheduler", "tcp://127.0.0.1:1"), "belong together"),
        (("--engine", "ray"), "unknown engine 'ray'; choose from dask, local"),
        (("--engine", "dusk"), "unknown engine 'dusk' (did you mean 'dask'?)"),
        (("--engine", "dask", "--scheduler", "nonsense://x"), "no Dask scheduler answers at nonsense://x"),
    ],
)
def test_wrong_engines(shipbench: Callable[..., Outcome], tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    outcome = shipbench(*LINE, *options, "--results", tmp_path / "r")
    assert outcome.code == 2
    assert words in outcome.err
    assert not (tmp_path / "r").exists()


def test_dask_that_is_not_installed(
    shipbench: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clients that were never connected import when they are collected.
    gc.collect()
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = shipbench(*LINE, "--engine", "dask", "--scheduler", "tcp://127.0.0.1:1", "--results", tmp_path / "r")
    assert outcome.code == 2
    assert "pip install 'shipbench[dask]'" in outcome.err
