"""Execute runs as jobs of a SLURM cluster, submitted through submitit; all nodes share the results folder."""

from __future__ import annotations

import os
import platform
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
        slurm_queue.require_partition(self._job_options.partition)

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        """Submit a job for every run and return when none of them is in the queue.

        An interruption revokes the claims of active runs and cancels the jobs; so does a submission that fails. Raises
        ``InputError`` if SLURM refuses the jobs, and ``ShipbenchError`` if all jobs end before their work begins.
        """
        folder = results.resolve() / "slurm"
        folder.mkdir(parents=True, exist_ok=True)
        # Before the submission, because the first jobs may begin while the last ones are still submitted.
        watch, name = _Watch([run.run_id for run in runs], folder, emit), f"shipbench-{secrets.token_hex(4)}"
        jobs: dict[str, str] = {}
        try:
            self._submit_all(runs, results.resolve(), folder, name, jobs)
            submitted = counted(len(jobs), "job")
            emit(Note(None, f"submitted {submitted} to SLURM; see 'squeue --me' and the logs in {folder}"))
            watch.until_done(jobs)
        except KeyboardInterrupt:
            for run_id in watch.active:
                claims.revoke(results, run_id)
            slurm_queue.cancel(name, jobs.values())
            raise
        watch.note_jobs_that_never_began(jobs)

    def for_job(self, run: PlannedRun) -> PlannedRun:
        """Return a run as its job executes it: with a GPU, ``auto`` is CUDA, so that no run falls back to the CPU."""
        # The precision is that of auto on this machine, as in the run's id.
        run = portable(run)
        on_gpu = self._job_options.with_gpu and run.spec.device == "auto"
        return replace(run, spec=replace(run.spec, device="cuda")) if on_gpu else run

    def _submit_all(
        self, runs: Sequence[PlannedRun], results: Path, folder: Path, name: str, jobs: dict[str, str]
    ) -> None:
        """Submit jobs called ``name``, add the job of every run to ``jobs``, and remember them in ``folder``."""
        try:
            for run_id, job in self._submit([self.for_job(run) for run in runs], results, folder, name):
                jobs[run_id] = job
            slurm_queue.remember_jobs(folder, jobs)
        except Exception:
            slurm_queue.cancel(name, jobs.values())
            raise

    def _submit(self, runs: Sequence[PlannedRun], results: Path, folder: Path, name: str) -> Iterator[tuple[str, str]]:
        """Submit runs as jobs called ``name``, and yield the run id and the job of each."""
        submitit, options = _submitit(), self._job_options
        executor = submitit.SlurmExecutor(folder, max_num_timeout=options.requeues)
        executor.update_parameters(job_name=name, **options.for_sbatch(self._options.jobs or _AT_A_TIME))
        job = _Job(results, folder, options.cpus)
        try:
            for chunk in _chunks(runs, _ARRAY):
                submitted = [str(each.job_id) for each in executor.map_array(job, chunk)]
                yield from zip((run.run_id for run in chunk), submitted, strict=True)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise InputError(f"SLURM has refused the jobs: {one_line(error)}") from error


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
