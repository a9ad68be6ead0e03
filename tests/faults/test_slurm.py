"""Grids on a real SLURM cluster of one node, where SLURM is installed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shipbench.engine.executors import slurm_queue
from tests.faults.grids import Grid, differences, leftovers
from tests.faults.slurm_cluster import running_cluster, why_no_cluster

pytestmark = pytest.mark.skipif(bool(why_no_cluster()), reason=why_no_cluster())

OPTIONS = ("--engine", "slurm", "--cluster", "gpus=0", "--cluster", "partition=tiny")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a cluster's commands."""
    with running_cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def grid(undisturbed: Grid, slurm: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    """The grid of the undisturbed one's linear probe and VPT, to be executed as jobs."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, slurm[name])
    environment = {name: slurm[name] for name in ("PATH", "SLURM_CONF")}
    return replace(undisturbed, results=tmp_path / "r", options=OPTIONS, environment=environment)


def test_a_job_near_its_time_limit_is_queued_again_and_resumes(grid: Grid, tmp_path: Path) -> None:
    alone = replace(grid, results=tmp_path / "alone", options=(), method="vpt-deep", epochs=80)
    command = replace(alone, results=grid.results, options=OPTIONS).start()
    _wait_until(lambda: list((grid.results / "checkpoints").glob("[!.]*")) != [])
    assert list(slurm_queue.queue_of(grid.results).values()) == [f"slurm {_only_job()}, running"]
    # SLURM sends this signal before the limit; a limit itself would take a minute.
    subprocess.run(["scancel", "--signal=USR2", _only_job()], check=True)
    _start_again(_only_job())
    assert command.wait(60) == 0, command.grid.said
    assert "from its checkpoint" in command.grid.said
    assert alone.run() == 0
    assert differences(grid.results, alone.results) == []
    assert [file for file in leftovers(grid.results) if not file.startswith("slurm/")] == []


def test_an_interrupted_command_cancels_its_jobs(grid: Grid) -> None:
    command = replace(grid, method="vpt-deep", epochs=150).start()
    command.wait_for("epoch 15/150")
    command.send(signal.SIGINT)
    assert command.wait(30) == 130
    assert "the same command continues from there" in command.grid.said
    _wait_until(lambda: not _queue("%i"))


def test_the_jobs_of_a_killed_command_are_followed_and_cancelled_by_the_next(grid: Grid) -> None:
    """The next command has a run more, whose job waits for them.

    A third command waits for the jobs of the second, and its interruption cancels none of them.
    """
    left = _left_by_a_killed_command(grid)
    command = replace(grid, method="linear,vpt-deep").start()
    command.wait_for("following 1 job that an earlier command has left in the queue; submitted 1 job to SLURM")
    assert sorted(_queue("%E")) == ["(null)", f"afterany:{left}(unfulfilled)"]
    other = replace(grid, method="linear,vpt-deep").start()
    other.wait_for("waiting for 2 jobs of another command; see")
    other.send(signal.SIGINT)
    assert other.wait(30) == 130
    assert len(_queue("%i")) == 2
    command.send(signal.SIGINT)
    assert command.wait(30) == 130
    _wait_until(lambda: not _queue("%i"))


def test_a_held_job_of_a_killed_command_is_replaced(grid: Grid) -> None:
    held = _left_by_a_killed_command(grid)
    subprocess.run(["scontrol", "hold", held], check=True)
    command = replace(grid, method="linear").start()
    command.wait_for("cancelled 1 held job that an earlier command has left; submitted 1 job to SLURM")
    assert _only_job() != held
    command.send(signal.SIGINT)
    assert command.wait(30) == 130
    _wait_until(lambda: not _queue("%i"))


def _left_by_a_killed_command(grid: Grid) -> str:
    """Kill a command whose job waits in a partition that starts none, and return the job."""
    subprocess.run(["scontrol", "update", "partitionname=tiny", "state=down"], check=True)
    killed = replace(grid, method="linear").start()
    killed.wait_for("submitted 1 job to SLURM")
    killed.send(signal.SIGKILL)
    return _only_job()


def _start_again(job: str) -> None:
    """Start a job that was queued again, after a few seconds; SLURM itself would wait two minutes."""
    _wait_until(lambda: f"{job}|PENDING|BeginTime" in _queue("%i|%T|%r"))
    # The node refuses a job that starts in the second of its requeue.
    subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now+3"], check=True)


def _wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.2)
    raise TimeoutError(f"the queue is {_queue('%i|%T|%r')}")


def _only_job() -> str:
    (job,) = _queue("%i")
    return job


def _queue(layout: str) -> list[str]:
    line = ["squeue", "--noheader", "--array", f"--format={layout}"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
