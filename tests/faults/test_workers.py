"""Worker processes that die beside others: real processes and claims, and runs that do not train."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shipbench.cli.progress import PlainDisplay
from shipbench.engine import supervisor
from shipbench.engine.executors import processes
from shipbench.engine.executors.channel import Address
from shipbench.engine.executors.local import LocalExecutor
from shipbench.engine.executors.registry import EngineOptions
from shipbench.engine.supervisor import execute_plan
from shipbench.errors import DeviceLostError
from shipbench.hardware.device import devices_for_workers
from shipbench.planning.plan import Plan, PlannedRun, State
from shipbench.planning.stacks import Stack
from shipbench.record import RunRecord
from shipbench.results.store import Store
from shipbench.spec import RunSpec
from tests.results.test_store import make_record

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX systems do")
# What a run does in its worker instead of training, given the results folder.
Work = Callable[[PlannedRun, Path], None]
CUDA_ERROR = "CUDA error: unspecified launch failure"
# The GPUs that this process has lost.
LOST: list[str] = []


def wait_for(path: Path) -> None:
    """Wait for a file; a run that waits too long fails."""
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.02)
    raise TimeoutError(f"{path.name} has not come")


def beside_others(results: Path) -> bool:
    """Return whether more than one run is claimed."""
    return len(list((results / "claims").glob("*.json"))) > 1


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lose(gpu: str) -> None:
    LOST.append(gpu)
    use(gpu)


def use(gpu: str) -> None:
    """Fail if this process has lost the GPU."""
    if gpu in LOST:
        raise RuntimeError(CUDA_ERROR)


def gone(results: Path, gpu: str) -> Path:
    """Return the file that says that a GPU fails in every process."""
    return results / f"{gpu}.gone"


def without_training(work: Work, results: Path) -> None:
    """Let the runs of this worker process do ``work`` instead, and fail where its GPU is lost or gone.

    This patches the modules of the worker process, not those of the test.
    """
    from shipbench.engine import attempt
    from shipbench.hardware import device
    from shipbench.runs.session import Session

    def probe(name: str) -> None:
        use(name)
        if gone(results, name).exists():
            raise RuntimeError(CUDA_ERROR)

    def execute_in_session(session: Session, run: Any) -> RunRecord:
        (results / f"{run.run_id}.begun").open("a").write(f"{run.spec.device}\n")
        use(run.spec.device)
        work(run, results)
        record = make_record(run_id=run.run_id, device=run.spec.device)
        session.store.write(record)
        return record

    device._probe = probe
    attempt.prepare_planned = lambda run: run  # type: ignore[assignment]
    Session.execute = execute_in_session  # type: ignore[method-assign]


@pytest.fixture
def execute(
    forked_workers: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Work], dict[str, RunRecord]]:
    """Execute runs a, b and c in two workers, with ``Work`` in place of training; return their records by id."""

    def execute(work: Work) -> dict[str, RunRecord]:
        def in_worker(stack: Any, *arguments: Any) -> None:
            without_training(work, arguments[0])
            processes._in_worker(stack, *arguments)

        monkeypatch.setattr(processes, "_in_worker", in_worker)
        monkeypatch.setattr(supervisor, "_MAX_DEATHS", 1)
        monkeypatch.setattr(supervisor, "_POLL_SECONDS", 0.1)
        runs = tuple(PlannedRun(RunSpec("linear", "dtd", device="cpu"), name, State.TO_DO) for name in "abc")
        executor = LocalExecutor(EngineOptions(jobs=2))
        records = execute_plan(Plan(runs, runs), tmp_path, executor, PlainDisplay(runs))
        return {record.run_id: record for record in records}

    return execute


def begun(results: Path, run_id: str) -> int:
    return len((results / f"{run_id}.begun").read_text().splitlines())


def test_only_the_run_that_kills_its_worker_fails(
    execute: Callable[[Work], dict[str, RunRecord]], tmp_path: Path
) -> None:
    def work(run: PlannedRun, results: Path) -> None:
        if run.run_id == "a":
            wait_for(results / "b.begun")
            kill_myself()
        if run.run_id == "b":
            wait_for(results / "runs" / "c.parquet")

    records = execute(work)
    assert {name: record.status for name, record in records.items()} == {"a": "failed", "b": "done", "c": "done"}
    assert "its process died 1 times" in records["a"].error
    # Once beside b, and once alone; only the latter counts.
    assert [begun(tmp_path, name) for name in "abc"] == [2, 1, 1]


def test_a_run_that_dies_beside_others_is_repeated_alone(
    execute: Callable[[Work], dict[str, RunRecord]], tmp_path: Path
) -> None:
    def work(run: PlannedRun, results: Path) -> None:
        if run.run_id == "a":
            wait_for(results / "b.begun")
            if beside_others(results):
                kill_myself()
        if run.run_id == "b":
            wait_for(results / "runs" / "c.parquet")

    records = execute(work)
    assert {record.status for record in records.values()} == {"done"}
    assert [begun(tmp_path, name) for name in "abc"] == [2, 1, 1]


def test_a_worker_keeps_its_device(
    execute: Callable[[Work], dict[str, RunRecord]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "devices_for_workers", lambda device, jobs: ["cuda:0", "cuda:1"])

    def work(run: PlannedRun, results: Path) -> None:
        if run.run_id == "a":
            wait_for(results / "runs" / "c.parquet")

    records = execute(work)
    assert {name: record.device for name, record in records.items()} == {"a": "cuda:0", "b": "cuda:1", "c": "cuda:1"}


def test_workers_get_devices_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_for_workers(torch.device("cuda"), 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices_for_workers(torch.device("cuda:1"), 2) == ["cuda:1", "cuda:1"]
    assert devices_for_workers(torch.device("cpu"), 2) == ["cpu", "cpu"]


def test_a_run_that_loses_its_gpu_is_repeated_in_a_new_process(
    execute: Callable[[Work], dict[str, RunRecord]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(processes, "devices_for_workers", lambda device, jobs: ["cuda:0"] * jobs)

    def work(run: PlannedRun, results: Path) -> None:
        if run.run_id == "a" and begun(results, "a") == 1:
            lose(run.spec.device)
        if run.run_id == "b":
            wait_for(results / "runs" / "c.parquet")

    records = execute(work)
    assert {name: record.status for name, record in records.items()} == dict.fromkeys("abc", "done")
    assert [begun(tmp_path, name) for name in "abc"] == [2, 1, 1]
    assert f"does not work ({CUDA_ERROR})" in capsys.readouterr().err


def test_a_run_that_loses_its_gpu_every_time_is_given_up(
    execute: Callable[[Work], dict[str, RunRecord]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "devices_for_workers", lambda device, jobs: ["cuda:0"] * jobs)

    def work(run: PlannedRun, results: Path) -> None:
        if run.run_id == "a":
            lose(run.spec.device)

    records = execute(work)
    assert {name: record.status for name, record in records.items()} == {"a": "failed", "b": "done", "c": "done"}
    assert "its process died 1 times" in records["a"].error
    assert begun(tmp_path, "a") == 2


@pytest.mark.parametrize("broken", [["cuda:0"], ["cuda:0", "cuda:1"]])
def test_other_gpus_do_the_work_of_one_that_is_gone(
    execute: Callable[[Work], dict[str, RunRecord]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: list[str]
) -> None:
    """Run a, of which the GPU may be the victim, is tried alone on each GPU; without one, nothing can be done."""
    monkeypatch.setattr(processes, "devices_for_workers", lambda device, jobs: ["cuda:0", "cuda:1"])

    def work(run: PlannedRun, results: Path) -> None:
        if run.run_id == "a" and run.spec.device == "cuda:0":
            wait_for(results / "runs" / "c.parquet")
            for gpu in broken:
                gone(results, gpu).touch()
            lose(run.spec.device)

    if broken == ["cuda:0"]:
        assert {name: record.device for name, record in execute(work).items()} == dict.fromkeys("abc", "cuda:1")
    else:
        with pytest.raises(DeviceLostError, match=r"cuda:1 of .* does not work .* the same command continues"):
            execute(work)
        store = Store(tmp_path)
        assert [store.status(name) for name in "abc"] == [None, "done", "done"]


def test_a_worker_that_died_while_it_was_idle_is_replaced(
    forked_workers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_in_worker", lambda *_: os.getpid())
    worker: Any = processes._Worker("cpu", 1, tmp_path, Address(None, b""))
    first = worker.submit(Stack((), ())).result()
    os.kill(first, signal.SIGKILL)
    for _ in range(1000):
        if worker._pool._flags.broken:
            break
        time.sleep(0.02)
    assert worker.submit(Stack((), ())).result() != first
    worker.stop()
