"""Stand-ins for SLURM's commands, and for the submission of jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from shipbench.engine.executors.slurm import SlurmExecutor
from shipbench.planning.plan import PlannedRun, State
from shipbench.spec import RunSpec

# Without --all, neither command shows what is hidden.
PARTITIONS = """
case "$*" in *--all*) ;; *) exit ;; esac
printf 'gpu\\nlong\\ngpu\\n'
"""
QUEUE = """
case "$*" in *--all*--user="$(id -u)"*) ;; *) exit ;; esac
printf '12_0|RUNNING|None\\n12_1|PENDING|Resources\\n13|RUNNING|None\\n'
"""


def write_command(file: Path, answer: str) -> None:
    """Write a shell script that stands in for a command of SLURM."""
    file.write_text(f"#!/bin/sh\n{answer}\n")
    file.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that answer as those of a cluster with the partitions gpu and long."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, answer in {
        "sbatch": "exit 1",
        "srun": "",
        "sinfo": PARTITIONS,
        "squeue": QUEUE,
    }.items():
        write_command(folder / name, answer)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


@pytest.fixture
def runs() -> tuple[PlannedRun, ...]:
    """Runs a and b."""
    return tuple(PlannedRun(RunSpec("linear", "dtd", precision="fp32"), name, State.TO_DO) for name in "ab")


def submitting(executor: SlurmExecutor, events: Callable[[Path, str], None]) -> SlurmExecutor:
    """Let ``executor`` submit each run as job 1 or 2, and call ``events(folder, run_id)`` right after it."""

    def submit(runs: Sequence[PlannedRun], results: Path, jobs: object) -> Iterator[Mapping[str, str]]:
        for number, run in enumerate(runs, 1):
            yield {run.run_id: str(number)}
            events(results / "slurm", run.run_id)

    executor._submit = submit  # type: ignore[method-assign]
    return executor


@pytest.fixture
def cancelled(cluster: Path, tmp_path: Path) -> Path:
    """The file to which the cluster's scancel writes its arguments."""
    file = tmp_path / "cancelled"
    write_command(cluster / "scancel", f'echo "$@" >> {file}')
    return file
