"""Attempt several planned runs as one stack, or one after another where that does not work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from shipbench.engine.attempt import attempt, claim_planned, failed_record, prepare_planned, show_traceback
from shipbench.errors import ShipbenchError, StoreError, one_line
from shipbench.events import Event, Listener, Started
from shipbench.hardware.determinism import seed_everything
from shipbench.hardware.memory import PeakMemory
from shipbench.planning.plan import PlannedRun
from shipbench.runs.preparation import Assembled, Prepared, build, load_inputs
from shipbench.runs.session import Session, Trained
from shipbench.training.history import Fit
from shipbench.training.inputs import ImageInputs
from shipbench.training.snapshot import random_states
from shipbench.training.stacked import Member, fit_stack, seconds_per_step


@dataclass(frozen=True)
class _ClaimedRun:
    """A planned run that this process has claimed for a stack."""

    run: PlannedRun
    session: Session


@dataclass(frozen=True)
class _AssembledRun:
    """A claimed run with its model and inputs, ready to be trained as a member of a stack."""

    claimed: _ClaimedRun
    prepared: Prepared
    assembled: Assembled
    member: Member


def attempt_stack(runs: Sequence[PlannedRun], results: Path, emit: Listener, *, measured: bool) -> None:
    """Execute runs that can be trained together; skip runs that another process has claimed or recorded.

    With ``measured``, train them together only if a measurement shows that to be faster. If a stack fails (for lack of
    memory, above all), emit a note and execute its runs one by one, from their checkpoints. Raises ``StoreError`` if
    the results folder cannot be written to.
    """
    if len(runs) > 1:
        emit = _starting_once(emit)
        _attempt_together(runs, results, emit, measured)
    for run in runs:
        attempt(run, results, emit)


def _starting_once(emit: Listener) -> Listener:
    """Return ``emit`` without repeated ``Started`` events: a run that leaves a stack continues alone."""
    started: set[str] = set()

    def emit_once(event: Event) -> None:
        if isinstance(event, Started):
            if event.run_id in started:
                return
            started.add(event.run_id)
        emit(event)

    return emit_once


def _attempt_together(runs: Sequence[PlannedRun], results: Path, emit: Listener, measured: bool) -> None:
    with ExitStack() as claims:
        sessions = [(run, claims.enter_context(claim_planned(run, results, emit))) for run in runs]
        claimed = [_ClaimedRun(run, session) for run, session in sessions if session is not None]
        if len(claimed) < 2:
            return
        note = claimed[0].session.emitter.note
        for one in claimed:
            emit(Started(one.run.run_id))
        try:
            _execute(claimed, measured)
        except StoreError:
            raise
        except torch.OutOfMemoryError:
            note(f"out of memory: {len(claimed)} runs do not fit on the device together; executing them one by one")
        except Exception as error:
            show_traceback()
            note(f"{len(claimed)} runs could not be trained together ({one_line(error)}); executing them one by one")


def _execute(claimed: Sequence[_ClaimedRun], measured: bool) -> None:
    """Train all runs together and store the record of each when it ends."""
    first, note = prepare_planned(claimed[0].run), claimed[0].session.emitter.note
    memory = PeakMemory(first.compute.device)
    train, evaluation = load_inputs(first)
    runs = [_assemble(one, first, train, evaluation) for one in claimed]
    members = [run.member for run in runs]
    if measured:
        together, apart = seconds_per_step(members, train, first.compute)
        note(f"a step of {len(members)} runs takes {1e3 * together:.1f} ms together, {1e3 * apart:.1f} ms one by one")
        if together >= apart:
            return
    note(f"trained together with {len(runs) - 1} other run(s), in one pass over the frozen backbone")
    for index, outcome in fit_stack(members, train, evaluation, first.compute):
        _finish(runs[index], outcome, memory, len(runs))


def _assemble(claimed: _ClaimedRun, first: Prepared, train: ImageInputs, evaluation: ImageInputs) -> _AssembledRun:
    """Build a run's model as for a run alone, from its checkpoint if it has one; share the backbone and the data."""
    run, session, device = claimed.run, claimed.session, first.compute.device
    resolved = run.spec.resolved
    # All runs of a stack were planned with the same data and weights, so checking the first one suffices.
    prepared = replace(first, resolved=resolved, run_id=run.run_id)
    start = session.start(prepared)
    seed_everything(resolved.spec.seed, device)
    built = build(prepared, train, session.emitter, start.facts)
    member = Member(built.model, resolved.recipe, resolved.spec.seed, random_states(device), start.hooks(built))
    return _AssembledRun(claimed, prepared, Assembled(built, evaluation, built.model, train, evaluation), member)


def _finish(run: _AssembledRun, outcome: Fit | ShipbenchError, memory: PeakMemory, count: int) -> None:
    """Store the record of a run that was trained in a stack of ``count``, unless another process has taken it over."""
    session = run.claimed.session
    if isinstance(outcome, ShipbenchError):
        record = failed_record(run.claimed.run, run.prepared, one_line(outcome))
        session.conclude(lambda: session.fail(record))
    else:
        trained = Trained(run.prepared, run.assembled, outcome, memory.bytes(), count)
        session.conclude(lambda: session.finish(trained))
