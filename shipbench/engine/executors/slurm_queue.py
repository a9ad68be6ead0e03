"""The queue of a SLURM cluster, read with its own commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from shipbench.errors import InputError
from shipbench.results.lookup import visible_files
from shipbench.runtime.files import atomic_path

_SECONDS = 30


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


def cancel(name: str, jobs: Iterable[str]) -> None:
    """Cancel ``jobs`` and this user's jobs called ``name``, pending or running.

    By name too, because sbatch may have been interrupted after the submission and before it gave the job's number.
    """
    if numbers := list(jobs):
        _output("scancel", *numbers)
    _output("scancel", _this_user(), f"--name={name}")


def remember_jobs(folder: Path, jobs: Mapping[str, str]) -> None:
    """Write the job of every run id in ``jobs`` to ``folder``."""
    for run_id, job in jobs.items():
        with atomic_path(folder / f"{run_id}.json") as temporary:
            temporary.write_text(json.dumps({"job": job}), encoding="utf-8")


def jobs_in_queue(results: Path, run_ids: Collection[str]) -> dict[str, str] | None:
    """Return the jobs of ``run_ids`` that are in the queue, by run id; None if the queue does not answer."""
    jobs = {run_id: job for run_id, job in _remembered(folder_of(results)) if run_id in run_ids}
    queue = states(jobs.values()) if jobs else {}
    return None if queue is None else {run_id: job for run_id, job in jobs.items() if job in queue}


def queue_of(results: Path) -> dict[str, str]:
    """Return ``slurm JOB, STATE`` of every run of a results folder that is in the queue, by run id.

    It is empty where nothing was submitted, and where this machine sees no queue.
    """
    jobs = dict(_remembered(folder_of(results)))
    queue = (states(jobs.values()) if jobs and in_reach() else None) or {}
    return {run_id: f"slurm {job}, {queue[job]}" for run_id, job in jobs.items() if job in queue}


def in_reach() -> bool:
    """Return whether this machine has the command that shows the queue."""
    return shutil.which("squeue") is not None


def _remembered(folder: Path) -> Iterable[tuple[str, str]]:
    for file in visible_files(folder, ".json"):
        try:
            yield file.stem, str(json.loads(file.read_text(encoding="utf-8"))["job"])
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
