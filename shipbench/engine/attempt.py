"""One planned run from claim to record: what every engine does, in whatever process."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shipbench.errors import ShipbenchError, StoreError, one_line
from shipbench.planning.plan import PlannedRun
from shipbench.record import RunRecord
from shipbench.results import claims
from shipbench.results.claims import Claim, ClaimLostError
from shipbench.results.store import Store
from shipbench.runs.preparation import Prepared, prepare
from shipbench.runs.recording import blank_record
from shipbench.runs.run import carry_out

Emit = Callable[[str, Any], None]


def attempt(run: PlannedRun, results: Path, emit: Emit) -> None:
    """Carry out a run and store its record, done or failed, unless another process has the run or did it meanwhile.

    Raises ``StoreError`` if the results folder cannot be written to.
    """
    _with_claim(run, results, lambda store, claim: _carry_out(run, store, claim, emit))


def give_up(run: PlannedRun, results: Path, reason: str) -> None:
    """Store a failed record of a run that cannot be carried out, unless another process has it or did it meanwhile."""
    _with_claim(run, results, lambda store, _: fail(run, store, None, reason))


def _with_claim(run: PlannedRun, results: Path, work: Callable[[Store, Claim], object]) -> None:
    """Do some work on a run that nobody else has and whose record is still the one that the plan has seen."""
    store = Store(results)
    claim = claims.take(store.root, run.run_id)
    if claim is None:
        return
    with claim:
        if store.written(run.run_id) == run.record_version:
            store.sweep(run.run_id)
            work(store, claim)


def _carry_out(run: PlannedRun, store: Store, claim: Claim, emit: Emit) -> None:
    emit("started", None)
    try:
        record = _record(run, store, claim, emit)
    except ClaimLostError:
        emit("lost", None)
    else:
        emit("finished", record)


def _record(run: PlannedRun, store: Store, claim: Claim, emit: Emit) -> RunRecord:
    """Carry out a run and return the record that was stored, done or failed."""
    prepared: Prepared | None = None
    try:
        prepared = prepare_planned(run)
        return carry_out(
            prepared,
            store,
            lambda text: emit("note", text),
            lambda report: emit("epoch", report),
            fresh=run.fresh,
            check=claim.check,
            confirm=lambda: claim.confirm(store, run.record_version),
        )
    except (StoreError, ClaimLostError):
        raise
    except Exception as error:
        show_traceback()
        claim.confirm(store, run.record_version)
        return fail(run, store, prepared, one_line(error))


def prepare_planned(run: PlannedRun) -> Prepared:
    """Load what a run needs; raises ``ShipbenchError`` if its data or weights are no longer those of the plan."""
    prepared = prepare(run.spec)
    if prepared.run_id != run.run_id:
        raise ShipbenchError(
            f"the data of {run.spec.task} or the weights of the backbone have changed since the grid was planned; "
            "the same command plans it again"
        )
    return prepared


def fail(run: PlannedRun, store: Store, prepared: Prepared | None, reason: str) -> RunRecord:
    """Store and return the record of a run that failed; one that could not be prepared has the hashes of the plan."""
    hashes = {} if prepared else {"data_fingerprint": run.data_fingerprint, "backbone_sha256": run.backbone_sha256}
    record = blank_record(run.spec, run.run_id, prepared, error=reason, **hashes)
    # In this order, whenever the process is killed: a checkpoint beside a failed record is of an attempt after it.
    store.remove("checkpoints", run.run_id)
    store.write(record)
    return record


def show_traceback() -> None:
    """Print the traceback of the exception that is being handled, if the user asked for it with ``--debug``."""
    if os.environ.get("SHIPBENCH_DEBUG"):
        traceback.print_exc()
