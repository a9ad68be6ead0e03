"""Attempt one planned run: claim it, execute it and store its record, in whichever process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path

from shipbench.errors import DeviceLostError, ShipbenchError, StoreError, one_line
from shipbench.events import Emitter, Listener, Started
from shipbench.hardware.determinism import undisturbed
from shipbench.hardware.device import require_usable
from shipbench.planning.plan import PlannedRun
from shipbench.record import RunRecord
from shipbench.results.claims import ClaimLostError
from shipbench.results.store import Store
from shipbench.runs.preparation import Prepared, prepare
from shipbench.runs.recording import blank_record, unprepared_record
from shipbench.runs.session import Session, claimed
from shipbench.runtime.console import show_traceback


def attempt(run: PlannedRun, results: Path, emit: Listener) -> None:
    """Execute a run and store its record, done or failed; skip a run that another process has claimed or recorded.

    Raises ``StoreError`` if the results folder cannot be written to, and ``DeviceLostError`` if the run's GPU fails for
    good in this process, which can then execute no other run; nothing is stored, and the checkpoint is kept. Attempts
    in several threads of a process take turns.
    """
    with undisturbed(), claim_planned(run, results, emit) as session:
        if session is not None:
            emit(Started(run.run_id))
            session.conclude(lambda: _execute(run, session))


def give_up(run: PlannedRun, results: Path, reason: str) -> None:
    """Store a failed record of a run without executing it, unless another process has claimed or recorded it."""
    with claim_planned(run, results) as session:
        if session is not None:
            session.conclude(lambda: session.fail(failed_record(run, None, reason)))


def claim_planned(
    run: PlannedRun, results: Path, emit: Listener | None = None
) -> AbstractContextManager[Session | None]:
    """Claim a planned run for a ``with`` block; see ``shipbench.runs.session.claimed``."""
    return claimed(Store(results), run.record_version, Emitter(run.run_id, emit))


def _execute(run: PlannedRun, session: Session) -> RunRecord:
    """Execute a claimed run and return the record that was stored, done or failed."""
    prepared: Prepared | None = None
    try:
        prepared = prepare_planned(run)
        return session.execute(prepared)
    except (StoreError, ClaimLostError):
        raise
    except Exception as error:
        show_traceback()
        require_device(run, session.emitter.note)
        return session.fail(failed_record(run, prepared, one_line(error)))


def require_device(run: PlannedRun, note: Callable[[str], None]) -> None:
    """After a failure of ``run``, note and raise ``DeviceLostError`` if its device fails every other run as well."""
    # Nothing tells whether the run broke the device or the device the run. So the run counts as one whose process has
    # died: it keeps its checkpoint and is repeated in a new process, and the supervisor gives it up if that dies too.
    try:
        require_usable(run.spec.device)
    except DeviceLostError as error:
        note(str(error))
        raise


@contextmanager
def in_worker(device: str) -> Iterator[None]:
    """End this worker process if its device is lost in the block, so that a new process repeats the run.

    Raises ``DeviceLostError`` before the first block if the device fails in a new process too.
    """
    _require_at_start(device)
    try:
        yield
    except DeviceLostError:
        os._exit(1)


@cache
def _require_at_start(device: str) -> None:
    require_usable(device)


def prepare_planned(run: PlannedRun) -> Prepared:
    """Prepare a run; raise ``ShipbenchError`` if its data or weights have changed since it was planned."""
    prepared = prepare(run.spec)
    if prepared.run_id != run.run_id:
        raise ShipbenchError(
            f"the data of {run.spec.resolved.task.name} or the weights of the backbone have changed since the grid was "
            "planned; run the same command again to plan it anew"
        )
    return prepared


def failed_record(run: PlannedRun, prepared: Prepared | None, reason: str) -> RunRecord:
    """Return the record of a failed run; one that could not be prepared keeps what it was planned with."""
    if prepared:
        return blank_record(prepared, reason)
    known = {"data_fingerprint": run.data_fingerprint, "precision": run.precision or run.spec.precision}
    return unprepared_record(run.spec, run.run_id, run.origin, error=reason, **known)
