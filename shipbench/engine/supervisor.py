"""Execute a plan to its last record, beside other processes that execute plans in the same results folder."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from shipbench.counts import counted
from shipbench.engine.attempt import give_up
from shipbench.engine.executors.registry import Executor
from shipbench.errors import DeviceLostError, ShipbenchError
from shipbench.events import EpochDone, Event, Finished, Listener, Lost, Note, Started
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.record import RunRecord
from shipbench.results import claims
from shipbench.results.store import Store

Execute = Callable[[Sequence[PlannedRun]], None]
_POLL_SECONDS = 1.0
# Give up on a run after its worker has died this many times while running alone.
_MAX_DEATHS = 3
# End the command after this many attempts in a row in which no run has started.
_MAX_IDLE = 3


def execute_plan(plan: Plan, results: Path, executor: Executor, listener: Listener) -> list[RunRecord]:
    """Execute the chosen runs and return their records, including failed ones; a failure stops no other run.

    Runs that other processes have claimed in the same folder are left to them and waited for. Raises ``StoreError`` if
    the results folder cannot be written to, ``DeviceLostError`` if a GPU has failed that all remaining runs need, and
    ``ShipbenchError`` if the executor starts no run, attempt after attempt.
    """
    # Once: from the checkpoints that fresh runs leave later, they resume after a death.
    _forget_checkpoints([run.run_id for run in plan.chosen if run.fresh], Store(results))
    supervisor = _Supervisor(plan.chosen, results, listener, remote=executor.remote)
    claims.tidy(supervisor.store)
    try:
        supervisor.supervise(lambda runs: executor.execute(runs, plan, results, supervisor.emit))
    except BaseException as error:
        # Killed workers cannot release their claims. A full disk must not hide the exception being raised.
        with suppress(ShipbenchError):
            claims.tidy(supervisor.store)
            # Elsewhere, a job of another command may wait for its turn to resume.
            if not executor.remote:
                _forget_stopped_repetitions(plan, supervisor.store)
        if isinstance(error, DeviceLostError):
            raise DeviceLostError(f"{error}; {_kept(plan, results)}") from error
        raise
    return [record for run in plan.chosen if (record := supervisor.store.read(run.run_id)) is not None]


def _kept(plan: Plan, results: Path) -> str:
    if any(run.fresh for run in plan.chosen):
        return f"finished runs are kept in {results}; without --force the same command executes only the others"
    return (
        f"finished runs and the checkpoints of unfinished ones are kept in {results}, and the same command continues "
        "from there once the device works"
    )


def _forget_checkpoints(run_ids: Iterable[str], store: Store) -> None:
    """Remove the checkpoints of runs that no process executes now."""
    for run_id in run_ids:
        if not store.path("checkpoints", run_id).exists():
            continue
        claim = claims.take(store.root, run_id)
        # Another process that executes the run now has started it without this command.
        if claim is not None:
            with claim:
                store.remove("checkpoints", run_id)


def _forget_stopped_repetitions(plan: Plan, store: Store) -> None:
    """Remove the checkpoints of repetitions of done runs: no later command resumes from them."""
    _forget_checkpoints([run.run_id for run in plan.chosen if run.fresh and store.status(run.run_id) == "done"], store)


class _Supervisor:
    """Executes runs until each has a new record in the store, whichever process wrote it."""

    def __init__(self, runs: Sequence[PlannedRun], results: Path, listener: Listener, *, remote: bool) -> None:
        self.store = Store(results)
        self.runs = runs
        self.listener = listener
        self.deaths = _Deaths(isolated=remote)
        self.finished: set[str] = set()
        self.claimed_elsewhere = 0
        self.started = False
        self.idle = 0
        self.lock = threading.Lock()

    def supervise(self, execute: Execute) -> None:
        """Execute the runs that no other process has claimed, repeatedly, until every run has a new record."""
        remaining = list(self.runs)
        while remaining:
            unclaimed = [run for run in remaining if claims.holder(self.store.root, run.run_id) is None]
            self._note_claims_elsewhere(remaining, unclaimed)
            ready = self._ready(unclaimed)
            if ready:
                self.started = False
                execute(ready)
                self.store.refresh(ready[0].run_id)
                self._refuse_idleness(ready)
            remaining = self._without_record(remaining)
            if remaining:
                time.sleep(_POLL_SECONDS)

    def emit(self, event: Event) -> None:
        """Pass an event to the listener, one at a time; drop events of a run that has finished."""
        with self.lock:
            if event.run_id in self.finished:
                return
            match event:
                case Started(run_id):
                    self.started = True
                    self.deaths.start(run_id)
                case EpochDone(run_id):
                    self.deaths.progress(run_id, event.epoch + 1)
                case Lost(run_id):
                    self.deaths.end(run_id)
                case Finished(run_id):
                    self.deaths.end(run_id)
                    self.finished.add(run_id)
                case Note():
                    pass
            self.listener(event)

    def _ready(self, unclaimed: Sequence[PlannedRun]) -> Sequence[PlannedRun]:
        """Return the runs to execute now: runs that died beside others come last, one at a time."""
        for run in unclaimed:
            self.deaths.count_vanished(run.run_id)
        alive = [run for run in unclaimed if not self._is_given_up(run)]
        together = [run for run in alive if run.run_id not in self.deaths.suspects]
        return together or [replace(run, alone=True) for run in alive[:1]]

    def _is_given_up(self, run: PlannedRun) -> bool:
        if self.deaths.count(run.run_id) < _MAX_DEATHS:
            return False
        reason = f"its process died {_MAX_DEATHS} times (perhaps out of memory, or of a failing GPU)"
        give_up(run, self.store.root, reason)
        return True

    def _refuse_idleness(self, runs: Sequence[PlannedRun]) -> None:
        """Raise ``ShipbenchError`` after too many attempts in which none of ``runs`` has started, here or elsewhere."""
        elsewhere = any(claims.holder(self.store.root, run.run_id) for run in runs)
        if self.started or elsewhere or self._without_record(runs) != runs:
            self.idle = 0
            return
        self.idle += 1
        if self.idle == _MAX_IDLE:
            raise ShipbenchError(
                f"{counted(len(runs), 'run')} did not start in {_MAX_IDLE} attempts: worker processes die before they "
                "begin, or the engine leaves runs out; finished runs are kept, and the same command continues"
            )

    def _without_record(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """Return the runs without a new record; emit the end of those that have one."""
        remaining = []
        for run in runs:
            if self.store.written(run.run_id) == run.record_version:
                remaining.append(run)
            elif (record := self.store.read(run.run_id)) is not None:
                self.emit(Finished(run.run_id, record))
            else:
                # Somebody has removed the record that the run was to replace.
                remaining.append(replace(run, record_version=None))
        return remaining

    def _note_claims_elsewhere(self, remaining: Sequence[PlannedRun], unclaimed: Sequence[PlannedRun]) -> None:
        claimed = [run for run in remaining if run not in unclaimed]
        holder = claims.holder(self.store.root, claimed[0].run_id) if claimed else None
        if holder and len(claimed) != self.claimed_elsewhere:
            subject = "a run" if len(claimed) == 1 else f"{len(claimed)} runs"
            then = "executing the others first" if unclaimed else "waiting"
            self.emit(Note(None, f"another process ({holder}) is executing {subject}; {then}"))
        self.claimed_elsewhere = len(claimed)


class _Deaths:
    """Counts how often a run's process has died, and forgets the deaths of a run that makes progress.

    On one machine, a run may die because another one takes its memory. So a run that died beside others becomes a
    suspect, to be executed alone, and only deaths alone count. Deaths of ``isolated`` runs, which do not compete for
    the memory of one machine, all count.
    """

    def __init__(self, *, isolated: bool) -> None:
        self.isolated = isolated
        self.suspects: set[str] = set()
        self._active: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._epochs: Counter[str] = Counter()

    def start(self, run_id: str) -> None:
        """Count a death if the run was active: a cluster restarts the run of a dead worker on another one."""
        self._deaths[run_id] += run_id in self._active
        self._active.add(run_id)

    def progress(self, run_id: str, epochs: int) -> None:
        """Forget the deaths of a run that has completed more epochs than ever: it will end despite being killed."""
        if epochs > self._epochs[run_id]:
            self._epochs[run_id] = epochs
            del self._deaths[run_id]

    def end(self, run_id: str) -> None:
        """Take a run off the active ones: it has ended, or another process has taken it over."""
        self._active.discard(run_id)

    def count_vanished(self, run_id: str) -> None:
        """Count a death if the run is active although no process holds its claim."""
        if run_id not in self._active:
            return
        self._active.discard(run_id)
        if self.isolated or run_id in self.suspects:
            self._deaths[run_id] += 1
        else:
            self.suspects.add(run_id)

    def count(self, run_id: str) -> int:
        """Return the deaths of a run since it last made progress."""
        return self._deaths[run_id]
