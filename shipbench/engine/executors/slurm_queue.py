"""The queue of a SLURM cluster, read with its own commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from shipbench.errors import InputError
from shipbench.results.lookup import visible_files
from shipbench.runtime.files import atomic_path
from shipbench.runtime.process_identity import ProcessIdentity, current_process, is_running

_SECONDS = 30


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue: its number, its state as in ``states``, and the process of the command that follows it.

    ``of_another`` says whether that is another command, which still runs; it is None if that cannot be known here.
    """

    number: str
    state: str
    command: ProcessIdentity
    of_another: bool | None

    @property
    def is_held(self) -> bool:
        """Whether the job waits until somebody releases it, as after a failed launch."""
        # QOSUsageThreshold passes by itself.
        return (
            re.search(r"jobheld|jobhold|requeued held|held state|requeue_hold|special_exit", self.state, re.I)
            is not None
        )


def folder_of(results: Path) -> Path:
    """Return the folder of a results folder that holds the scripts, logs and events of its jobs."""
    return results / "slurm"


def is_here() -> bool:
    """Return whether this machine submits jobs to a SLURM cluster."""
    return shutil.which("sbatch") is not None


def require_slurm() -> None:
    """Raise ``InputError`` unless this machine submits jobs to a SLURM cluster."""
    if not is_here():
        raise InputError("--engine slurm needs sbatch, which is not on the PATH; run the command on a login node")


def require_partitions(names: str | None) -> None:
    """Raise ``InputError`` unless the cluster answers and has the partitions of a comma list; None is its default."""
    # With those that are hidden, where jobs may run all the same.
    listed = _output("sinfo", "--all", "--noheader", "--format=%R")
    if listed is None:
        raise InputError("the SLURM controller does not answer; see 'sinfo'")
    partitions = sorted(set(listed.split()))
    missing = [name for name in (names.split(",") if names else ()) if name not in partitions]
    if missing:
        raise InputError(f"the SLURM cluster has no partition {missing[0]!r}; it has {', '.join(partitions) or 'none'}")


def states(jobs: Iterable[str]) -> dict[str, str] | None:
    """Return the state of each of ``jobs`` that is still in the queue, by its id; None if the queue does not answer.

    States are in lower case, such as ``running``; one that waits also names the reason, as in ``pending: Resources``.
    """
    listed = _output("squeue", "--all", "--noheader", "--array", _this_user(), "--format=%i|%T|%r")
    if listed is None:
        return None
    wanted, queue = set(jobs), dict[str, str]()
    # A site may print a message of its own before the jobs.
    for line in filter(lambda line: line.count("|") >= 2, listed.splitlines()):
        job, state, reason = line.split("|", 2)
        if job in wanted:
            queue[job] = state.lower() if reason in ("None", "") else f"{state.lower()}: {reason}"
    return queue


def cancel(jobs: Iterable[str]) -> None:
    """Cancel ``jobs``, pending or running."""
    if numbers := list(jobs):
        _output("scancel", *numbers)


def cancel_named(name: str) -> None:
    """Cancel this user's jobs called ``name``, pending or running.

    sbatch may have been interrupted after the submission and before it gave the job's number.
    """
    _output("scancel", _this_user(), f"--name={name}")


def remember_jobs(folder: Path, jobs: Mapping[str, str]) -> None:
    """Write the job of every run id in ``jobs`` to ``folder``, with this process as that of its command."""
    command = asdict(current_process())
    for run_id, job in jobs.items():
        with atomic_path(folder / f"{run_id}.json") as temporary:
            temporary.write_text(json.dumps({"job": job, "command": command}), encoding="utf-8")


def jobs_in_queue(results: Path) -> dict[str, QueuedJob] | None:
    """Return the jobs of a results folder that are in the queue, by run id; None if the queue does not answer."""
    jobs = {run_id: (job, command) for run_id, job, command in _remembered(folder_of(results))}
    queue = states(job for job, _ in jobs.values()) if jobs else {}
    if queue is None:
        return None
    others = {command: _is_another(command) for _, command in jobs.values()}
    return {
        run_id: QueuedJob(job, queue[job], command, others[command])
        for run_id, (job, command) in jobs.items()
        if job in queue
    }


def _is_another(command: ProcessIdentity) -> bool | None:
    # is_running alone would take the jobs of this command for those of another one.
    return False if command == current_process() else is_running(command)


def queue_of(results: Path) -> dict[str, str]:
    """Return ``slurm JOB, STATE`` of every run of a results folder that is in the queue, by run id.

    It is empty where nothing was submitted, and where this machine sees no queue.
    """
    jobs = {run_id: job for run_id, job, _ in _remembered(folder_of(results))}
    queue = (states(jobs.values()) if jobs and in_reach() else None) or {}
    return {run_id: f"slurm {job}, {queue[job]}" for run_id, job in jobs.items() if job in queue}


def in_reach() -> bool:
    """Return whether this machine has the command that shows the queue."""
    return shutil.which("squeue") is not None


def _remembered(folder: Path) -> Iterator[tuple[str, str, ProcessIdentity]]:
    """Yield run id, job and command of every run that was submitted."""
    for file in visible_files(folder, ".json"):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            yield file.stem, str(content["job"]), ProcessIdentity(**content["command"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue


def _this_user() -> str:
    # By number: the name in the environment may be another user's, as after su.
    return f"--user={os.getuid()}"


def _output(*command: str) -> str | None:
    """Return what a command of SLURM prints, or None if it fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
