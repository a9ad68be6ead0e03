"""Execute runs as jobs of a SLURM cluster, submitted through submitit; all nodes share the results folder."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from annotated_types import Ge

from shipbench.engine.executors import slurm_queue
from shipbench.engine.executors.journal import JournalWriter
from shipbench.engine.executors.portable import portable
from shipbench.engine.executors.registry import EngineOptions, refuse_number_of_stacked_runs, refuse_scheduler
from shipbench.engine.executors.slurm_jobs import Jobs, Watch, arrays_of, find_jobs, journal_of
from shipbench.errors import InputError, check_all, one_line
from shipbench.events import Listener, Note
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.results import claims
from shipbench.runtime.plug_ins import missing_library
from shipbench.settings import Settings, configure, field_names, refuse_unknown

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
        checks: list[Callable[[], Any]] = [
            partial(_job_options, options),
            partial(refuse_scheduler, options),
            partial(refuse_number_of_stacked_runs, "slurm", options, "a job executes one run"),
            slurm_queue.require_slurm,
            _submitit,
        ]
        self._job_options: SlurmJobOptions = check_all(checks)[0]

    @staticmethod
    def why_unusable() -> str:
        """Return that submitit or SLURM is missing, or an empty string."""
        return missing_library("submitit") or ("" if slurm_queue.is_here() else "sbatch is not on the PATH")

    def check(self) -> None:
        """Raise ``InputError`` unless the cluster answers and has the partition."""
        slurm_queue.require_partitions(self._job_options.partition)

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        """Submit a job for every run and return when none of them is in the queue.

        A run of the plan gets no second job: one that another command has submitted is awaited if that command still
        runs, else followed. An interruption cancels the jobs that were submitted here or left by commands that have
        ended, and revokes the claims of their active runs; a submission that fails cancels its own. Raises
        ``InputError`` if SLURM refuses the jobs, and ``ShipbenchError`` if all jobs end before their work begins.
        """
        results = results.resolve()
        folder = slurm_queue.folder_of(results)
        folder.mkdir(parents=True, exist_ok=True)
        jobs = find_jobs(runs, plan, results)
        jobs.take_over(folder)
        to_submit = [run for run in runs if run.run_id not in jobs.awaited]
        # Before the submission, because the first jobs may begin while the last ones are still submitted.
        watch = Watch([*jobs.followed, *(run.run_id for run in to_submit)], folder, emit)
        try:
            self._submit_all(to_submit, results, jobs)
            emit(Note(None, f"{jobs.text}; see 'squeue --me' and the logs in {folder}"))
            watch.until_done(jobs.awaited.values())
        except KeyboardInterrupt:
            for run_id in watch.active & jobs.own.keys():
                claims.revoke(results, run_id)
            jobs.cancel()
            raise
        watch.note_jobs_that_never_began(jobs.submitted)

    def for_job(self, run: PlannedRun) -> PlannedRun:
        """Return a run as its job executes it: with a GPU, ``auto`` is CUDA, so that no run falls back to the CPU."""
        # The precision is that of auto on this machine, as in the run's id.
        run = portable(run)
        on_gpu = self._job_options.with_gpu and run.spec.device == "auto"
        return replace(run, spec=replace(run.spec, device="cuda")) if on_gpu else run

    def _submit_all(self, runs: Sequence[PlannedRun], results: Path, jobs: Jobs) -> None:
        """Submit a job for every run, add it to those that ``jobs`` has submitted, and remember it."""
        try:
            for array in self._submit([self.for_job(run) for run in runs], results, jobs):
                jobs.submitted.update(array)
                slurm_queue.remember_jobs(slurm_queue.folder_of(results), array)
        except Exception:
            jobs.cancel_submitted()
            raise

    def _submit(self, runs: Sequence[PlannedRun], results: Path, jobs: Jobs) -> Iterator[Mapping[str, str]]:
        """Submit runs as jobs, and yield those of each array by run id.

        SLURM limits how many jobs of one array run at a time. So each array waits for the end of the jobs before it.
        """
        submitit, options, folder = _submitit(), self._job_options, slurm_queue.folder_of(results)
        executor = submitit.SlurmExecutor(folder, max_num_timeout=options.requeues)
        executor.update_parameters(job_name=jobs.name, **options.for_sbatch(self._options.jobs or _AT_A_TIME))
        work, before = _Job(results, folder, options.cpus), jobs.arrays
        try:
            for chunk in _chunks(runs, _ARRAY):
                if before:
                    executor.update_parameters(dependency=f"afterany:{':'.join(before)}")
                submitted = [str(each.job_id) for each in executor.map_array(work, chunk)]
                yield dict(zip((run.run_id for run in chunk), submitted, strict=True))
                before = arrays_of(submitted)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise InputError(f"SLURM has refused the jobs: {one_line(error)}") from error


def _job_options(options: EngineOptions) -> SlurmJobOptions:
    refuse_unknown(options.cluster, field_names(SlurmJobOptions), "--cluster with --engine slurm")
    return configure(SlurmJobOptions, dict(options.cluster))


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
        emit = JournalWriter(journal_of(self.folder, run.run_id))
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
