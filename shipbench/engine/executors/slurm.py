"""Execute runs as jobs of a SLURM cluster, submitted through submitit; all nodes share the results folder."""

from __future__ import annotations

import os
import platform
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from annotated_types import Ge

from shipbench.counts import counted
from shipbench.engine.executors import slurm_queue
from shipbench.engine.executors.journal import JournalReader, JournalWriter
from shipbench.engine.executors.portable import portable
from shipbench.engine.executors.registry import EngineOptions
from shipbench.errors import InputError, ShipbenchError, one_line
from shipbench.events import Finished, Listener, Lost, Note, Started
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.results import claims
from shipbench.runtime.plug_ins import missing_library
from shipbench.settings import Settings, configure, field_names, refuse_unknown

_POLL_SECONDS = 2.0
# SLURM's default MaxArraySize is 1001.
_ARRAY = 1000
_AT_A_TIME = 256


@dataclass(frozen=True)
class SlurmJobOptions(Settings):
    """What each job asks the cluster for: the options of ``--cluster``.

    ``time`` is the limit in minutes; SLURM signals a job ``warning`` seconds before it, at most a third of the limit,
    whereupon the job is queued again, at most ``requeues`` times, and resumes from its checkpoint. ``gpus`` and
    ``cpus`` are per job, ``cpus`` is also the number of threads, and ``memory`` is a size such as 32GB. ``setup`` is a
    shell command that each job executes first. The other options are those of sbatch.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    time: Annotated[int, Ge(1)] = 60
    warning: Annotated[int, Ge(1)] = 120
    requeues: Annotated[int, Ge(0)] = 20
    gpus: Annotated[int, Ge(0)] = 1
    cpus: Annotated[int, Ge(1)] = 1
    memory: str | None = None
    setup: str | None = None

    @property
    def with_gpu(self) -> bool:
        """Whether a job has a GPU."""
        return self.gpus > 0 or "gpu" in (self.gres or "")

    def for_sbatch(self, at_a_time: int) -> dict[str, Any]:
        """Return the parameters of submitit's executor, with at most ``at_a_time`` jobs running."""
        parameters = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "gres": self.gres,
            "time": self.time,
            # A job that is signalled as it begins would be queued again without progress.
            "signal_delay_s": min(self.warning, 20 * self.time),
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            # Since SLURM 22.05, srun does not take this over from sbatch.
            "srun_args": [f"--cpus-per-task={self.cpus}"],
            # Without it, a cluster with JobRequeue=0 does not queue a job again.
            "additional_parameters": {"requeue": True},
            "mem": self.memory,
            "setup": [self.setup] if self.setup else None,
            "array_parallelism": at_a_time,
        }
        return {name: value for name, value in parameters.items() if value is not None}


class SlurmExecutor:
    """Executes every run as a job; ``jobs`` of the options limits how many run at a time."""

    remote = True

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        refuse_unknown(options.cluster, field_names(SlurmJobOptions), "--cluster with --engine slurm")
        self._job_options = configure(SlurmJobOptions, dict(options.cluster))

    @staticmethod
    def why_unusable() -> str:
        """Return that submitit or SLURM is missing, or an empty string."""
        return missing_library("submitit") or ("" if slurm_queue.is_here() else "sbatch is not on the PATH")

    def check(self) -> None:
        """Raise ``InputError`` unless the options fit, submitit is installed, and the cluster has the partition."""
        stacking = self._options.stacking
        if self._options.scheduler is not None:
            raise InputError("--scheduler ADDRESS and --engine dask belong together; give both or neither")
        if stacking.most > 1 and not stacking.automatic:
            raise InputError("--stack N and --engine slurm cannot be combined: a job executes one run")
        slurm_queue.require_slurm()
        _submitit()
        slurm_queue.require_partitions(self._job_options.partition)

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        """Submit a job for every run and return when none of them is in the queue.

        A run whose job an earlier command has left in the queue gets no second one; that job is followed instead. An
        interruption revokes the claims of active runs and cancels the jobs; a submission that fails cancels its own.
        Raises ``InputError`` if SLURM refuses the jobs, and ``ShipbenchError`` if all jobs end before their work
        begins.
        """
        results, run_ids = results.resolve(), [run.run_id for run in runs]
        folder = slurm_queue.folder_of(results)
        folder.mkdir(parents=True, exist_ok=True)
        # Before the submission, because the first jobs may begin while the last ones are still submitted.
        watch = _Watch(run_ids, folder, emit)
        jobs = _Jobs(f"shipbench-{secrets.token_hex(4)}", _left_in_queue(results, run_ids))
        try:
            self._submit_all([run for run in runs if run.run_id not in jobs.left], results, jobs)
            emit(Note(None, f"{jobs.text}; see 'squeue --me' and the logs in {folder}"))
            watch.until_done(jobs.all)
        except KeyboardInterrupt:
            for run_id in watch.active:
                claims.revoke(results, run_id)
            slurm_queue.cancel(jobs.name, jobs.all.values())
            raise
        watch.note_jobs_that_never_began(jobs.submitted)

    def for_job(self, run: PlannedRun) -> PlannedRun:
        """Return a run as its job executes it: with a GPU, ``auto`` is CUDA, so that no run falls back to the CPU."""
        # The precision is that of auto on this machine, as in the run's id.
        run = portable(run)
        on_gpu = self._job_options.with_gpu and run.spec.device == "auto"
        return replace(run, spec=replace(run.spec, device="cuda")) if on_gpu else run

    def _submit_all(self, runs: Sequence[PlannedRun], results: Path, jobs: _Jobs) -> None:
        """Submit a job for every run, add it to those that ``jobs`` has submitted, and remember it."""
        try:
            for run_id, job in self._submit([self.for_job(run) for run in runs], results, jobs):
                jobs.submitted[run_id] = job
            slurm_queue.remember_jobs(slurm_queue.folder_of(results), jobs.submitted)
        except Exception:
            slurm_queue.cancel(jobs.name, jobs.submitted.values())
            raise

    def _submit(self, runs: Sequence[PlannedRun], results: Path, jobs: _Jobs) -> Iterator[tuple[str, str]]:
        """Submit runs as jobs, and yield the run id and the job of each.

        SLURM limits how many jobs of one array run at a time. So each array waits for the end of the jobs before it.
        """
        submitit, options, folder = _submitit(), self._job_options, slurm_queue.folder_of(results)
        executor = submitit.SlurmExecutor(folder, max_num_timeout=options.requeues)
        executor.update_parameters(job_name=jobs.name, **options.for_sbatch(self._options.jobs or _AT_A_TIME))
        work, before = _Job(results, folder, options.cpus), _arrays(jobs.left.values())
        try:
            for chunk in _chunks(runs, _ARRAY):
                if before:
                    executor.update_parameters(dependency=f"afterany:{':'.join(before)}")
                submitted = [str(each.job_id) for each in executor.map_array(work, chunk)]
                yield from zip((run.run_id for run in chunk), submitted, strict=True)
                before = _arrays(submitted)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise InputError(f"SLURM has refused the jobs: {one_line(error)}") from error


@dataclass(frozen=True)
class _Jobs:
    """Jobs by run id: those that an earlier command has ``left`` in the queue, and those ``submitted`` as ``name``."""

    name: str
    left: Mapping[str, str]
    submitted: dict[str, str] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, str]:
        """All jobs to follow."""
        return {**self.left, **self.submitted}

    @property
    def text(self) -> str:
        """The jobs in words, as in "submitted 3 jobs to SLURM"."""
        followed = f"following {counted(len(self.left), 'job')} that an earlier command has left in the queue"
        submitted = f"submitted {counted(len(self.submitted), 'job')} to SLURM"
        return "; ".join([followed] * bool(self.left) + [submitted] * bool(self.submitted))


@dataclass(frozen=True)
class _Job:
    """A job's work, which submitit pickles: one run in the results folder, its events in a journal of ``folder``."""

    results: Path
    folder: Path
    threads: int

    def __call__(self, run: PlannedRun) -> None:
        import torch

        from shipbench.engine.attempt import attempt

        torch.set_num_threads(self.threads)
        _end_if_a_signal_handler_fails()
        emit = JournalWriter(_journal(self.folder, run.run_id))
        emit(Note(run.run_id, f"SLURM job {os.environ.get('SLURM_JOB_ID')} runs on {platform.node()}"))
        attempt(run, self.results, emit)

    def checkpoint(self, run: PlannedRun) -> Any:
        """Return the submission with which a job near its time limit is queued again."""
        return _submitit().helpers.DelayedSubmission(self, run)


def _end_if_a_signal_handler_fails() -> None:
    """Let an error in a signal handler of submitit end this process.

    submitit raises one, within whatever the process is doing, when it may not queue the job again. It would count as an
    error of the run in progress, which would be recorded as failed and lose its checkpoint.
    """

    def ending(handler: Callable[..., Any]) -> Callable[..., Any]:
        def handle(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except Exception as error:
                raise SystemExit(one_line(error)) from error

        return handle

    for number in signal.Signals:
        handler = signal.getsignal(number) if number.name.startswith("SIGUSR") else None
        if callable(handler):
            signal.signal(number, ending(handler))


class _Watch:
    """Follows runs from their submission: forwards their events and knows which of them are ``active``."""

    def __init__(self, run_ids: Iterable[str], folder: Path, emit: Listener) -> None:
        self.active: set[str] = set()
        self._folder, self._emit = folder, emit
        self._began: set[str] = set()
        self._readers = {run_id: JournalReader(_journal(folder, run_id)) for run_id in run_ids}
        # Events of an earlier submission are none of this one's.
        for reader in self._readers.values():
            reader.skip()

    def until_done(self, jobs: Mapping[str, str]) -> None:
        """Forward events until none of ``jobs``, which are named by run id, is in the queue."""
        while True:
            queue = slurm_queue.states(jobs.values())
            self._forward()
            # A controller that does not answer may be restarting; the jobs continue meanwhile.
            if queue is not None and not queue:
                return
            time.sleep(_POLL_SECONDS)

    def note_jobs_that_never_began(self, jobs: Mapping[str, str]) -> None:
        """Note how many of ``jobs`` ended without an event; raise ``ShipbenchError`` if no job began.

        One alone may have met a broken node, and the supervisor submits its run anew.
        """
        silent = [job for run_id, job in jobs.items() if run_id not in self._began]
        if not silent:
            return
        ended = (
            f"{len(silent)} of {counted(len(jobs), 'SLURM job')} ended before their work began; "
            f"see {self._folder / f'{silent[0]}_0_log.err'}"
        )
        if not self._began:
            raise ShipbenchError(ended)
        self._emit(Note(None, ended))

    def _forward(self) -> None:
        for run_id, reader in self._readers.items():
            for event in reader.events():
                self._began.add(run_id)
                if isinstance(event, Started):
                    self.active.add(run_id)
                elif isinstance(event, Finished | Lost):
                    self.active.discard(run_id)
                self._emit(event)


def _left_in_queue(results: Path, run_ids: Iterable[str]) -> dict[str, str]:
    """Return the jobs of earlier commands that are still in the queue, by run id; wait until the queue answers."""
    while (jobs := slurm_queue.jobs_in_queue(results, set(run_ids))) is None:
        time.sleep(_POLL_SECONDS)
    return jobs


def _arrays(jobs: Iterable[str]) -> list[str]:
    """Return the ids of the arrays, or of the single jobs, that ``jobs`` belong to."""
    return sorted({job.partition("_")[0] for job in jobs})


def _journal(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.events"


def _chunks(runs: Sequence[PlannedRun], size: int) -> Iterator[Sequence[PlannedRun]]:
    return (runs[start : start + size] for start in range(0, len(runs), size))


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise InputError(
            "--engine slurm needs submitit, which is not installed; run pip install 'shipbench[slurm]'"
        ) from error
    return submitit
