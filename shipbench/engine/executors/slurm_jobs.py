"""Find, follow and cancel the SLURM jobs of a plan: those that a command submits, and those it finds in the queue."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shipbench.counts import counted, named_few
from shipbench.engine.executors import slurm_queue
from shipbench.engine.executors.journal import JournalReader
from shipbench.engine.executors.slurm_queue import QueuedJob
from shipbench.errors import ShipbenchError
from shipbench.events import EpochDone, Event, Finished, Listener, Lost, Note, Started
from shipbench.planning.plan import Plan, PlannedRun

_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Jobs:
    """The jobs of a plan by run id: ``found`` in the queue, found there but ``held``, and ``submitted`` as ``name``.

    ``stuck`` are the arrays with a job, of whichever plan, that stays held.
    """

    found: Mapping[str, QueuedJob] = field(default_factory=dict)
    held: Mapping[str, QueuedJob] = field(default_factory=dict)
    stuck: Collection[str] = ()
    submitted: dict[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"shipbench-{secrets.token_hex(4)}")

    @property
    def own(self) -> dict[str, str]:
        """The jobs that were submitted here or left by commands that have ended."""
        return {**_numbers(self.found, False), **self.submitted}

    @property
    def followed(self) -> dict[str, str]:
        """The own jobs, and those of commands on other machines, which may have ended."""
        return {**_numbers(self.found, None), **self.own}

    @property
    def awaited(self) -> dict[str, str]:
        """The followed jobs, and those of other commands that still run."""
        return {**_numbers(self.found, True), **self.followed}

    @property
    def arrays(self) -> list[str]:
        """The arrays of followed jobs that will end: those without a job that stays held."""
        return [array for array in arrays_of(self.followed.values()) if array not in self.stuck]

    @property
    def text(self) -> str:
        """The jobs in words, as in "submitted 3 jobs to SLURM"."""
        hosts = named_few(sorted({job.command.host for job in self.found.values() if job.of_another is None}))
        left, elsewhere, others = (_numbers(self.found, of_another) for of_another in (False, None, True))
        cancelled, held = _numbers(self.held, False), {**_numbers(self.held, True), **_numbers(self.held, None)}
        parts = (
            (left, "following", "job", "that an earlier command has left in the queue"),
            (elsewhere, "following", "job", f"of a command on {hosts}, which Ctrl-C here does not cancel"),
            (others, "waiting for", "job", "of another command"),
            (cancelled, "cancelled", "held job", "that an earlier command has left"),
            (held, "not waiting for", "held job", "of another command"),
            (self.submitted, "submitted", "job", "to SLURM"),
        )
        return "; ".join(f"{verb} {counted(len(jobs), noun)} {rest}" for jobs, verb, noun, rest in parts if jobs)

    def take_over(self, folder: Path) -> None:
        """Become the command of jobs that ended commands have left; cancel those of them that are held."""
        slurm_queue.cancel(_numbers(self.held, False).values())
        slurm_queue.remember_jobs(folder, _numbers(self.found, False))

    def cancel(self) -> None:
        """Cancel the own jobs."""
        slurm_queue.cancel(self.own.values())
        slurm_queue.cancel_named(self.name)

    def cancel_submitted(self) -> None:
        """Cancel the jobs that were submitted here."""
        slurm_queue.cancel(self.submitted.values())
        slurm_queue.cancel_named(self.name)


def find_jobs(runs: Sequence[PlannedRun], plan: Plan, results: Path) -> Jobs:
    """Return the jobs of a plan's chosen runs that are in the queue; wait until the queue answers.

    Of commands that still run, only the jobs of ``runs``, those to execute now, are included.
    """
    chosen, now = {run.run_id for run in plan.chosen}, {run.run_id for run in runs}
    while (queue := slurm_queue.jobs_in_queue(results)) is None:
        time.sleep(_POLL_SECONDS)
    jobs = {run_id: job for run_id, job in queue.items() if run_id in now or (run_id in chosen and not job.of_another)}
    held = {run_id: job for run_id, job in jobs.items() if job.is_held}
    cancelled = _numbers(held, False)
    stuck = [job.number for run_id, job in queue.items() if job.is_held and run_id not in cancelled]
    return Jobs({run_id: job for run_id, job in jobs.items() if run_id not in held}, held, arrays_of(stuck))


class Watch:
    """Follows runs from their submission: forwards their events and knows which of them are ``active``."""

    def __init__(self, run_ids: Iterable[str], folder: Path, emit: Listener) -> None:
        self.active: set[str] = set()
        self._folder, self._emit = folder, emit
        self._began: set[str] = set()
        self._readers = {run_id: JournalReader(journal_of(folder, run_id)) for run_id in run_ids}
        # Events of an earlier submission are none of this one's.
        for reader in self._readers.values():
            reader.skip()

    def until_done(self, jobs: Collection[str]) -> None:
        """Forward events until none of ``jobs`` is in the queue."""
        while True:
            queue = slurm_queue.states(jobs)
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
                # The job of an earlier command may have started its run before it was followed.
                if isinstance(event, EpochDone) and run_id not in self.active:
                    self._pass_on(Started(run_id))
                self._pass_on(event)

    def _pass_on(self, event: Event) -> None:
        match event:
            case Started(run_id):
                self.active.add(run_id)
            case Finished(run_id) | Lost(run_id):
                self.active.discard(run_id)
        self._emit(event)


def arrays_of(jobs: Iterable[str]) -> list[str]:
    """Return the ids of the arrays, or of the single jobs, that ``jobs`` belong to."""
    return sorted({job.partition("_")[0] for job in jobs})


def journal_of(folder: Path, run_id: str) -> Path:
    """Return the file in ``folder`` that a run's job writes its events to."""
    return folder / f"{run_id}.events"


def _numbers(jobs: Mapping[str, QueuedJob], of_another: bool | None) -> dict[str, str]:
    return {run_id: job.number for run_id, job in jobs.items() if job.of_another is of_another}
