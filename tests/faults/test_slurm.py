"""Grids on a real SLURM cluster of one node, where SLURM is installed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shipbench.engine.executors import slurm_queue
from tests.faults.grids import Grid, differences, leftovers
from tests.faults.slurm_cluster import running_cluster, why_no_cluster

pytestmark = pytest.mark.skipif(bool(why_no_cluster()), reason=why_no_cluster())

PAGE = Path(__file__).parents[2] / "docs/how-to/slurm.md"
# The number of threads changes rounding, and a job has fewer cores than the machine.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
OPTIONS = ("--engine", "slurm", "--cluster", "gpus=0", "--cluster", "partition=tiny")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a cluster's commands."""
    with running_cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture(scope="module")
def alone(undisturbed: Grid, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """A longer grid, executed without a job and without a fault."""
    folder = tmp_path_factory.mktemp("alone")
    longer = replace(undisturbed, results=folder / "r", method="vpt-deep", epochs=80, environment=ONE_THREAD)
    assert longer.run() == 0, longer.said
    return longer


@pytest.fixture
def grid(undisturbed: Grid, slurm: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Grid]:
    """The grid of the undisturbed one's linear probe and VPT, to be executed as jobs."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, slurm[name])
    # An earlier test may have closed the partition.
    subprocess.run(["scontrol", "update", "partitionname=tiny", "state=up"], check=True)
    environment = {name: slurm[name] for name in ("PATH", "SLURM_CONF")}
    yield replace(undisturbed, results=tmp_path / "r", options=OPTIONS, environment=environment)
    # What a failed test has left would disturb the next one.
    subprocess.run(["scancel", "--me"], check=True)
    _wait_until(lambda: not _queue("%i"))


def test_a_job_near_its_time_limit_is_queued_again_and_resumes(grid: Grid, alone: Grid) -> None:
    environment = {**grid.environment, **ONE_THREAD}
    command = replace(grid, method=alone.method, epochs=alone.epochs, environment=environment).start()
    _wait_until(lambda: list((grid.results / "checkpoints").glob("[!.]*")) != [])
    assert list(slurm_queue.queue_of(grid.results).values()) == [f"slurm {_only_job()}, running"]
    # SLURM sends this signal before the limit; a limit itself would take a minute.
    subprocess.run(["scancel", "--signal=USR2", _only_job()], check=True)
    _start_again(_only_job())
    assert command.wait(60) == 0, command.grid.said
    assert "from its checkpoint" in command.grid.said
    assert differences(grid.results, alone.results) == []
    assert [file for file in leftovers(grid.results) if not file.startswith("slurm/")] == []


def test_the_job_array_of_the_page_is_queued_again_and_resumes(
    grid: Grid, alone: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of both jobs executes the only run, and the other waits for it."""
    array = replace(alone, results=grid.results, environment={**grid.environment, **ONE_THREAD})
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{grid.environment['PATH']}")
    job = _submit_script(array, tmp_path)
    _wait_until(lambda: list((array.results / "checkpoints").glob("[!.]*")) != [])
    # SLURM sends this signal to the steps of the jobs before the limit.
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    for task in (0, 1):
        _start_again(f"{job}_{task}")
    _wait_until(lambda: not _queue("%i"))
    logs = [(tmp_path / f"{task}.log").read_text() for task in (0, 1)]
    assert any("from its checkpoint" in log for log in logs), logs
    assert differences(array.results, alone.results) == []
    assert leftovers(array.results) == []


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


def _submit_script(grid: Grid, folder: Path) -> str:
    """Submit the script of the page with another grid, for one core and no GPU, and return the job."""
    (script,) = re.findall(r'^```sh title="shipbench.sbatch"\n(.*?)^```', PAGE.read_text("utf-8"), re.M | re.S)
    command = shlex.join(["shipbench", *grid.arguments, "--device", "cpu"])
    script, commands = re.subn("shipbench run .*", lambda _: command, script)
    script, requests = re.subn(" --gres=gpu:1", "", script)
    assert (commands, requests) == (1, 1)
    path = folder / "shipbench.sbatch"
    path.write_text(script)
    line = ["sbatch", "--parsable", "--array=0-1", "--cpus-per-task=1", f"--output={folder}/%a.log", str(path)]
    environment = {**os.environ, **grid.all_environment}
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout.strip()


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
    # A job starts Python beside whatever else the machine does.
    for _ in range(900):
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
