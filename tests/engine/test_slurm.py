"""The options and the submission of SLURM jobs, and the view of the queue, with stand-ins for SLURM's commands."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shipbench.engine.executors import slurm, slurm_queue
from shipbench.engine.executors.journal import JournalReader, JournalWriter
from shipbench.engine.executors.portable import portable
from shipbench.engine.executors.registry import EngineOptions, get_executor
from shipbench.engine.executors.slurm import SlurmExecutor, SlurmJobOptions
from shipbench.engine.executors.slurm import _Job as Job
from shipbench.engine.executors.slurm_jobs import Jobs
from shipbench.errors import InputError
from shipbench.events import Note
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.planning.stacks import Stacking
from shipbench.results import claims
from shipbench.results.store import Store
from shipbench.runs.session import Session
from tests.conftest import Shipbench
from tests.engine.conftest import write_command


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"unknown setting 'partion' for --cluster .*\(did you mean 'partition'\?\)"):
        get_executor("slurm", EngineOptions(cluster={"partion": "gpu"}))
    with pytest.raises(InputError, match="time"):
        get_executor("slurm", EngineOptions(cluster={"time": "two hours"}))


@pytest.mark.parametrize(
    ("options", "seconds"), [({"time": 1}, 20), ({"time": 2, "warning": 30}, 30), ({"time": 5}, 100), ({}, 120)]
)
def test_a_short_job_is_not_signalled_as_it_begins(options: dict[str, int], seconds: int) -> None:
    assert SlurmJobOptions(**options).for_sbatch(1)["signal_delay_s"] == seconds


@pytest.mark.usefixtures("cluster")
def test_a_partition_that_does_not_exist_is_refused() -> None:
    for partitions in ("long", "gpu,long"):
        get_executor("slurm", EngineOptions(cluster={"partition": partitions})).check()
    with pytest.raises(InputError, match="the SLURM cluster has no partition 'preempt'; it has gpu, long"):
        get_executor("slurm", EngineOptions(cluster={"partition": "gpu,preempt"})).check()
    with pytest.raises(InputError, match="the SLURM cluster has no partition 'gpus'; it has gpu, long"):
        get_executor("slurm", EngineOptions(cluster={"partition": "gpus"})).check()


def test_a_controller_that_does_not_answer_is_refused(cluster: Path) -> None:
    write_command(cluster / "sinfo", "exit 1")
    with pytest.raises(InputError, match="the SLURM controller does not answer"):
        get_executor("slurm", EngineOptions()).check()


@pytest.mark.usefixtures("cluster")
def test_jobs_neither_stack_nor_have_a_scheduler() -> None:
    with pytest.raises(InputError, match="--stack N and --engine slurm cannot be combined"):
        get_executor("slurm", EngineOptions(stacking=Stacking(3)))
    with pytest.raises(InputError, match="--engine dask belong together"):
        get_executor("slurm", EngineOptions(scheduler="tcp://127.0.0.1:1"))


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
        "partition": "gpu",
        "time": 240,
        "signal_delay_s": 120,
        "gpus_per_node": 2,
        "cpus_per_task": 4,
        "srun_args": ["--cpus-per-task=4"],
        "additional_parameters": {"requeue": True},
        "mem": "32GB",
        "setup": ["module load cuda"],
        "array_parallelism": 8,
    }
    assert "gpus_per_node" not in SlurmJobOptions(gpus=0).for_sbatch(1)


@pytest.mark.parametrize(
    ("options", "device", "on_the_node"),
    [
        ({}, "auto", "cuda"),
        ({"gpus": "0", "gres": "gpu:a100:1"}, "auto", "cuda"),
        ({"gpus": "0", "gres": "lustre:1"}, "auto", "auto"),
        ({"gpus": "0"}, "auto", "auto"),
        ({}, "cpu", "cpu"),
        ({}, "cuda:1", "cuda:1"),
    ],
)
@pytest.mark.usefixtures("cluster")
def test_a_job_with_a_gpu_does_not_train_on_the_cpu(
    runs: tuple[PlannedRun, ...], options: dict[str, str], device: str, on_the_node: str
) -> None:
    pytest.importorskip("submitit")
    run = replace(runs[0], spec=replace(runs[0].spec, device=device))
    for_job = SlurmExecutor(EngineOptions(cluster=options)).for_job(run)
    assert for_job == portable(run)
    assert for_job.spec.device == on_the_node


@pytest.mark.usefixtures("cluster")
def test_the_queue_is_read_by_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As after su, which keeps the name of the user before.
    monkeypatch.setenv("LOGNAME", "somebody-else")
    slurm_queue.remember_jobs(tmp_path / "slurm", {"a1": "12_0", "b2": "12_1", "c3": "9"})
    assert slurm_queue.queue_of(tmp_path) == {"a1": "slurm 12_0, running", "b2": "slurm 12_1, pending: Resources"}


def test_without_a_queue_there_is_no_view(tmp_path: Path, cluster: Path) -> None:
    assert slurm_queue.queue_of(tmp_path) == {}
    slurm_queue.remember_jobs(tmp_path / "slurm", {"a1": "12_0"})
    write_command(cluster / "squeue", "exit 1")
    assert slurm_queue.queue_of(tmp_path) == {}


def test_half_an_event_of_a_killed_job_hides_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a.events"
    write, reader = JournalWriter(file), JournalReader(file)
    reader.skip()
    write(Note("a", "first"))
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:-20])
    assert list(reader.events()) == [Note("a", "first")]
    write(Note("a", "last"))
    assert list(reader.events()) == [Note("a", "last")]
    assert list(reader.events()) == []


def the_jobs_of(script: Path) -> str:
    """Return the arguments of scancel that cancel the jobs of a script, which has their name."""
    (name,) = (line.split("=")[1] for line in script.read_text().splitlines() if "--job-name=" in line)
    assert name.startswith("shipbench-")
    return f"--user={os.getuid()} --name={name}\n"


def test_an_interruption_before_sbatch_has_named_the_job_cancels_it(
    runs: tuple[PlannedRun, ...], tmp_path: Path, cluster: Path, cancelled: Path
) -> None:
    pytest.importorskip("submitit", reason="the extra shipbench[slurm] is not installed")
    script = tmp_path / "script"
    write_command(cluster / "sbatch", f'cp "$1" {script}; kill -INT $PPID')
    with pytest.raises(KeyboardInterrupt):
        SlurmExecutor(EngineOptions()).execute(runs, Plan(runs, runs), tmp_path / "r", lambda _: None)
    assert cancelled.read_text() == the_jobs_of(script)


def test_jobs_that_cannot_be_remembered_are_cancelled(
    runs: tuple[PlannedRun, ...], tmp_path: Path, cluster: Path, cancelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="the extra shipbench[slurm] is not installed")
    script = tmp_path / "script"
    write_command(cluster / "sbatch", f'cp "$1" {script}; echo Submitted batch job 12')

    def fill_the_disk(folder: Path, jobs: Mapping[str, str]) -> None:
        if jobs:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(slurm_queue, "remember_jobs", fill_the_disk)
    with pytest.raises(OSError, match="No space left on device"):
        SlurmExecutor(EngineOptions()).execute(runs, Plan(runs, runs), tmp_path / "r", lambda _: None)
    assert cancelled.read_text() == f"12_0 12_1\n{the_jobs_of(script)}"


def test_jobs_are_submitted_with_their_options_and_cancelled_if_others_are_refused(
    runs: tuple[PlannedRun, ...], tmp_path: Path, cluster: Path, cancelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("submitit", reason="the extra shipbench[slurm] is not installed")
    # An array of two runs and a third run, which is refused.
    monkeypatch.setattr(slurm, "_ARRAY", 2)
    script, folder = tmp_path / "script", tmp_path / "r" / "slurm"
    write_command(cluster / "sbatch", f'[ -e {script} ] && exit 1; cp "$1" {script}; echo Submitted batch job 12')
    options = EngineOptions(jobs=1, cluster={"partition": "long", "time": "90", "gpus": "0", "requeues": "4"})
    runs = (*runs, replace(runs[0], run_id="c"))
    with pytest.raises(InputError, match="SLURM has refused the jobs: "):
        SlurmExecutor(options).execute(runs, Plan(runs, runs), tmp_path / "r", lambda _: None)
    lines = script.read_text().splitlines()
    for line in ("partition=long", "time=90", "array=0-1%1", "signal=USR2@120", "cpus-per-task=1", "requeue"):
        assert f"#SBATCH --{line}" in lines
    assert [line for line in lines if line.startswith("srun ") and " --cpus-per-task=1 " in line]
    assert not any("gpus" in line for line in lines)
    job = submitit.core.utils.DelayedSubmission.load(folder / "12_1_submitted.pkl")
    assert (job.function, job.args) == (Job(tmp_path / "r", folder, 1), (portable(runs[1]),))
    assert job._timeout_countdown == 4
    # A command that is killed before it has submitted all arrays leaves no unknown jobs.
    assert {file.stem: json.loads(file.read_text())["job"] for file in folder.glob("*.json")} == {
        "a": "12_0",
        "b": "12_1",
    }
    assert cancelled.read_text() == f"12_0 12_1\n{the_jobs_of(script)}"


def test_a_limit_of_jobs_holds_over_all_arrays(
    runs: tuple[PlannedRun, ...], tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="the extra shipbench[slurm] is not installed")
    monkeypatch.setattr(slurm, "_ARRAY", 2)
    sbatch = f'number=$(ls {tmp_path} | grep -c script); cp "$1" {tmp_path}/script$number; echo job 2$number'
    write_command(cluster / "sbatch", sbatch)
    earlier = Jobs(submitted={"f": "12_0", "g": "12_7", "h": "13"})
    five = tuple(replace(runs[0], run_id=name) for name in "abcde")
    arrays = list(SlurmExecutor(EngineOptions(jobs=1))._submit(five, tmp_path / "r", earlier))
    assert arrays == [{"a": "20_0", "b": "20_1"}, {"c": "21_0", "d": "21_1"}, {"e": "22"}]
    lines = [(tmp_path / f"script{number}").read_text().splitlines() for number in range(3)]
    for script, before in zip(lines, ("12:13", "20", "21"), strict=True):
        assert f"#SBATCH --dependency=afterany:{before}" in script
    assert [script.count("#SBATCH --array=0-1%1") for script in lines] == [1, 1, 0]


def test_messages_of_a_site_are_no_jobs(cluster: Path) -> None:
    write_command(cluster / "squeue", "printf 'Maintenance on Friday\\n1|RUNNING|None\\n2|PENDING|Resources\\n'")
    assert slurm_queue.states(["1", "2", "3"]) == {"1": "running", "2": "pending: Resources"}


def test_a_job_that_may_not_be_queued_again_fails_no_run(
    runs: tuple[PlannedRun, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("submitit", reason="the extra shipbench[slurm] is not installed")

    def refuse(number: int, frame: object) -> None:
        raise submitit.core.utils.UncompletedJobError("Job not requeued because: timed-out too many times.")

    def execute(session: Session, run: PlannedRun) -> None:
        os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.setattr("shipbench.engine.attempt.prepare_planned", lambda run: run)
    monkeypatch.setattr(Session, "execute", execute)
    checkpoint = Store(tmp_path).path("checkpoints", "a")
    for folder in (checkpoint.parent, tmp_path / "slurm"):
        folder.mkdir()
    checkpoint.write_bytes(b"epoch 3")
    before = signal.signal(signal.SIGUSR2, refuse)
    try:
        with pytest.raises(SystemExit, match="timed-out too many times"):
            Job(tmp_path, tmp_path / "slurm", torch.get_num_threads())(runs[0])
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert Store(tmp_path).read("a") is None
    assert checkpoint.read_bytes() == b"epoch 3"
    assert not claims.holders(tmp_path)
