"""Attempt several planned runs as one stack, or one after another where that does not work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.counts import counted
from shipbench.engine.attempt import attempt, claim_planned, prepare_planned, require_device
from shipbench.errors import ShipbenchError, StoreError, one_line
from shipbench.events import DISCARD, Event, Listener, Started
from shipbench.hardware.determinism import seed_everything, undisturbed
from shipbench.hardware.device import as_current
from shipbench.hardware.memory import PeakMemory, lacks_memory
from shipbench.planning.plan import PlannedRun
from shipbench.planning.stacks import Stack
from shipbench.runs.preparation import Assembled, Prepared, build, load_inputs
from shipbench.runs.recording import Trained, blank_record
from shipbench.runs.session import Session, Start
from shipbench.runtime.console import show_traceback
from shipbench.training.history import Fit
from shipbench.training.inputs import ImageInputs
from shipbench.training.snapshot import random_states
from shipbench.training.stacked import Member, fit_stack


@dataclass(frozen=True)
class _StackMember:
    """A planned run in a stack; without a session, which only a run claimed by this process has, a placeholder."""

    run: PlannedRun
    session: Session | None


@dataclass(frozen=True)
class _AssembledRun:
    """A run of a stack with its model and inputs, ready to be trained."""

    session: Session | None
    prepared: Prepared
    assembled: Assembled
    member: Member


def attempt_stack(stack: Stack, results: Path, emit: Listener) -> None:
    """Execute the runs that are due in a stack; skip runs that another process has claimed or recorded.

    If a stack fails (for lack of memory, above all), emit a note and execute its runs one by one, from their
    checkpoints. Raises ``StoreError`` and ``DeviceLostError`` as ``attempt`` does.
    """
    if len(stack.runs) > 1:
        emit = _starting_once(emit)
        _attempt_together(stack, results, emit)
    for run in stack.due:
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


def _attempt_together(stack: Stack, results: Path, emit: Listener) -> None:
    due = {run.run_id for run in stack.due}
    with undisturbed(), ExitStack() as claims:
        members = [
            _StackMember(run, claims.enter_context(claim_planned(run, results, emit)) if run.run_id in due else None)
            for run in stack.runs
        ]
        claimed = [(member.run, member.session) for member in members if member.session is not None]
        if not claimed:
            return
        note = claimed[0][1].emitter.note
        for run, _ in claimed:
            emit(Started(run.run_id))
        try:
            _execute(members, note)
        except StoreError:
            raise
        except Exception as error:
            if lacks_memory(error):
                note(f"out of memory: {len(members)} runs do not fit on the device together; executing them one by one")
                return
            show_traceback()
            require_device(claimed[0][0], note)
            note(f"{len(members)} runs could not be trained together ({one_line(error)}); executing them one by one")


def _execute(members: Sequence[_StackMember], note: Callable[[str], None]) -> None:
    """Train all runs together and store the record of each when it ends."""
    first = prepare_planned(members[0].run)
    with as_current(first.compute.device):
        _train(members, first, note)


def _train(members: Sequence[_StackMember], first: Prepared, note: Callable[[str], None]) -> None:
    """Train all runs with the data, the weights and the device of the first."""
    memory = PeakMemory(first.compute.device)
    train, evaluation = load_inputs(first)
    runs = [_assemble(member, first, train, evaluation) for member in members]
    # The last of the runs may still have read the backbone that all of them share.
    for run in runs:
        cast_frozen_weights(run.assembled.built.model, first.compute)
    note(_together(members))
    for index, outcome in fit_stack([run.member for run in runs], train, evaluation, first.compute):
        _finish(runs[index], outcome, memory, len(runs))


def _together(members: Sequence[_StackMember]) -> str:
    text = f"trained together with {counted(len(members) - 1, 'other run')}, in one pass over the frozen backbone"
    placeholders = sum(member.session is None for member in members)
    return f"{text}; {placeholders} of them are placeholders that keep the results the same" if placeholders else text


def _assemble(member: _StackMember, first: Prepared, train: ImageInputs, evaluation: ImageInputs) -> _AssembledRun:
    """Build a run's model as for a run alone, from its checkpoint if it has one; share the backbone and the data."""
    run, session, device = member.run, member.session, first.compute.device
    resolved = run.spec.resolved
    # All runs of a stack were planned with the same data and weights, so checking the first one suffices.
    prepared = replace(first, resolved=resolved, run_id=run.run_id)
    start = Start(DISCARD) if session is None else session.start(prepared)
    seed = resolved.spec.seed
    seed_everything(seed, device)
    built = build(prepared, train, start.emitter, start.facts)
    randomness, hooks = random_states(device), start.hooks(built)
    stacked = Member(built.model, resolved.recipe, seed, randomness, hooks, placeholder=session is None)
    assembled = Assembled(built, evaluation, built.model, train, evaluation)
    return _AssembledRun(session, prepared, assembled, stacked)


def _finish(trained: _AssembledRun, outcome: Fit | ShipbenchError, memory: PeakMemory, count: int) -> None:
    """Store the record of a run that was trained in a stack of ``count``, unless another process has taken it over."""
    session = trained.session
    if session is None:
        return
    if isinstance(outcome, ShipbenchError):
        record = blank_record(trained.prepared, one_line(outcome))
        session.conclude(lambda: session.fail(record))
    else:
        result = Trained(trained.prepared, trained.assembled, outcome, memory.bytes(), count)
        session.conclude(lambda: session.finish(result))
