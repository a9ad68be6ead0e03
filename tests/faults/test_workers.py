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
from shipbench.engine.executors.local import LocalExecutor
from shipbench.engine.executors.registry import EngineOptions
from shipbench.engine.supervisor import execute_plan
from shipbench.hardware.device import devices_for_workers
from shipbench.planning.plan import Plan, PlannedRun, State
from shipbench.record import RunRecord
from shipbench.spec import RunSpec
from tests.results.test_store import make_record

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX systems do")
# What a run does in its worker instead of training, given the results folder.
Work = Callable[[PlannedRun, Path], None]


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


@pytest.fixture
def execute(
    forked_workers: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Work], dict[str, RunRecord]]:
    """Execute runs a, b and c in two workers, with ``Work`` in place of training; return their records by id."""

    def execute(work: Work) -> dict[str, RunRecord]:
        def in_worker(stack: Any, *arguments: Any) -> None:
            # This patches the modules of the worker process, not those of the test.
            from shipbench.engine import attempt
            from shipbench.runs.session import Session

            def execute_in_session(session: Session, run: Any) -> RunRecord:
                root = session.store.root
                (root / f"{run.run_id}.begun").open("a").write(f"{run.spec.device}\n")
                work(run, root)
                record = make_record(run_id=run.run_id, device=run.spec.device)
                session.store.write(record)
                return record

            attempt.prepare_planned = lambda run: run  # type: ignore[assignment]
            Session.execute = execute_in_session  # type: ignore[method-assign]
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
