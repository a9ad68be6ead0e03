"""The options of SLURM jobs and the view of the queue, with stand-ins for SLURM's commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench.engine.executors import slurm_queue
from shipbench.engine.executors.registry import EngineOptions, get_executor
from shipbench.engine.executors.slurm import SlurmJobOptions
from shipbench.errors import InputError
from shipbench.planning.stacks import Stacking
from tests.conftest import Outcome

Shipbench = Callable[..., Outcome]
QUEUE = """
printf '12_0|RUNNING|None\\n12_1|PENDING|Resources\\n13|RUNNING|None\\n'
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that answer as those of a cluster with the partitions gpu and long."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, answer in {
        "sbatch": "exit 1",
        "srun": "",
        "sinfo": "printf 'gpu\\nlong\\ngpu\\n'",
        "squeue": QUEUE,
    }.items():
        _write_command(folder / name, answer)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def _write_command(file: Path, answer: str) -> None:
    file.write_text(f"#!/bin/sh\n{answer}\n")
    file.chmod(0o755)


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"unknown setting 'partion' for --cluster .*\(did you mean 'partition'\?\)"):
        get_executor("slurm", EngineOptions(cluster={"partion": "gpu"}))
    with pytest.raises(InputError, match="time"):
        get_executor("slurm", EngineOptions(cluster={"time": "two hours"}))


@pytest.mark.usefixtures("cluster")
def test_a_partition_that_does_not_exist_is_refused() -> None:
    get_executor("slurm", EngineOptions(cluster={"partition": "long"})).check()
    with pytest.raises(InputError, match="the SLURM cluster has no partition 'gpus'; it has gpu, long"):
        get_executor("slurm", EngineOptions(cluster={"partition": "gpus"})).check()


def test_a_controller_that_does_not_answer_is_refused(cluster: Path) -> None:
    _write_command(cluster / "sinfo", "exit 1")
    with pytest.raises(InputError, match="the SLURM controller does not answer"):
        get_executor("slurm", EngineOptions()).check()


@pytest.mark.usefixtures("cluster")
def test_jobs_neither_stack_nor_have_a_scheduler() -> None:
    with pytest.raises(InputError, match="--stack N and --engine slurm do not go together"):
        get_executor("slurm", EngineOptions(stacking=Stacking(3))).check()
    with pytest.raises(InputError, match="--engine dask belong together"):
        get_executor("slurm", EngineOptions(scheduler="tcp://127.0.0.1:1")).check()


def test_a_machine_without_slurm_is_refused_before_anything_is_planned(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    line = ("run", "--method", "linear", "--tasks", "demo-tiny", "--results", tmp_path / "r", "--engine", "slurm")
    outcome = shipbench(*line, "--cluster", "partition=gpu")
    assert outcome.code == 2
    assert "needs sbatch, which is not on the PATH" in outcome.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("engine", ["local", "dask"])
def test_other_engines_refuse_options_of_a_cluster(shipbench: Shipbench, tmp_path: Path, engine: str) -> None:
    line = ("run", "--method", "linear", "--tasks", "demo-tiny", "--results", tmp_path / "r", "--engine", engine)
    outcome = shipbench(*line, "--cluster", "partition=gpu")
    assert outcome.code == 2
    assert f"--engine {engine} has no --cluster options; remove partition" in outcome.err


def test_options_become_those_of_sbatch() -> None:
    options = SlurmJobOptions(partition="gpu", time=240, gpus=2, cpus=4, memory="32GB", setup="module load cuda")
    assert options.for_sbatch(8) == {
        "job_name": "shipbench",
        "partition": "gpu",
        "time": 240,
        "signal_delay_s": 120,
        "gpus_per_node": 2,
        "cpus_per_task": 4,
        "mem": "32GB",
        "setup": ["module load cuda"],
        "array_parallelism": 8,
    }
    assert "gpus_per_node" not in SlurmJobOptions(gpus=0).for_sbatch(1)


@pytest.mark.usefixtures("cluster")
def test_the_queue_is_read_by_run(tmp_path: Path) -> None:
    slurm_queue.remember_jobs(tmp_path / "slurm", {"a1": "12_0", "b2": "12_1", "c3": "9"})
    assert slurm_queue.queue_of(tmp_path) == {"a1": "slurm 12_0, running", "b2": "slurm 12_1, pending: Resources"}


def test_without_a_queue_there_is_no_view(tmp_path: Path, cluster: Path) -> None:
    assert slurm_queue.queue_of(tmp_path) == {}
    slurm_queue.remember_jobs(tmp_path / "slurm", {"a1": "12_0"})
    _write_command(cluster / "squeue", "exit 1")
    assert slurm_queue.queue_of(tmp_path) == {}
