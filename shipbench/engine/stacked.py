"""Several planned runs from claims to records as one stack, or one after another where that does not work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shipbench.engine.attempt import attempt, fail, prepare_planned, show_traceback
from shipbench.errors import ShipbenchError, StoreError, one_line
from shipbench.hardware.determinism import seed_everything
from shipbench.hardware.memory import PeakMemory
from shipbench.hardware.precision import ComputeContext
from shipbench.planning.plan import PlannedRun
from shipbench.results import claims
from shipbench.results.claims import Claim, ClaimLostError
from shipbench.results.store import Store
from shipbench.runs.preparation import Assembled, Prepared, build, load_inputs
from shipbench.runs.recording import describe, store_run
from shipbench.runs.run import checkpoint_of
from shipbench.training.history import Fit
from shipbench.training.inputs import ImageInputs
from shipbench.training.loop import Hooks
from shipbench.training.snapshot import random_states
from shipbench.training.stacked import Member, fit_stack, seconds_per_step

Tell = Callable[[str, str, Any], None]


@dataclass(frozen=True)
class _Held:
    """A run that this process has claimed for a stack, and the way to tell what happens to it."""

    run: PlannedRun
    claim: Claim
    store: Store
    tell: Tell

    def emit(self, kind: str, content: Any) -> None:
        self.tell(self.run.run_id, kind, content)

    def say(self, text: str) -> None:
        self.emit("note", text)


@dataclass(frozen=True)
class _Ready:
    """A claimed run with its model and inputs, ready to be trained as a member of a stack."""

    held: _Held
    prepared: Prepared
    assembled: Assembled
    member: Member


def attempt_stack(runs: Sequence[PlannedRun], results: Path, tell: Tell, *, measured: bool) -> None:
    """Carry out runs that can be trained together, those that nobody else has; ``tell`` gets (run_id, kind, content).

    With ``measured``, they are trained together only if that is faster. Whatever keeps a stack from coming to its end
    (memory, above all) is said, and its runs go on alone, from their checkpoints. Raises ``StoreError`` if the results
    folder cannot be written to.
    """
    if len(runs) > 1:
        tell = _starting_once(tell)
        _together(runs, Store(results), tell, measured)
    for run in runs:
        attempt(run, results, partial(tell, run.run_id))


def _starting_once(tell: Tell) -> Tell:
    """Tell only once that a run has started: one that goes on alone has not begun anew."""
    started: set[str] = set()

    def told(run_id: str, kind: str, content: Any) -> None:
        if kind != "started" or run_id not in started:
            tell(run_id, kind, content)
        if kind == "started":
            started.add(run_id)

    return told


def _together(runs: Sequence[PlannedRun], store: Store, tell: Tell, measured: bool) -> None:
    with ExitStack() as claimed:
        held = list(_claim(runs, store, tell, claimed))
        if len(held) < 2:
            return
        for one in held:
            one.emit("started", None)
        try:
            _carry_out(held, measured)
        except StoreError:
            raise
        except torch.OutOfMemoryError:
            held[0].say(f"out of memory: {len(held)} runs do not fit on the device together; they go on one by one")
        except Exception as error:
            show_traceback()
            held[0].say(f"{len(held)} runs could not be trained together ({one_line(error)}); they go on one by one")


def _claim(runs: Sequence[PlannedRun], store: Store, tell: Tell, claimed: ExitStack) -> Iterator[_Held]:
    """Claim every run that is free and not done meanwhile, until ``claimed`` is closed."""
    for run in runs:
        claim = claims.take(store.root, run.run_id)
        if claim is not None:
            claimed.enter_context(claim)
            if store.written(run.run_id) == run.record_version:
                store.sweep(run.run_id)
                yield _Held(run, claim, store, tell)


def _carry_out(held: Sequence[_Held], measured: bool) -> None:
    """Train all runs together and store each one's record when it ends."""
    first = prepare_planned(held[0].run)
    memory = PeakMemory(first.compute.device)
    train, evaluation = load_inputs(first)
    ready = [_assemble(one, first, train, evaluation) for one in held]
    members = [one.member for one in ready]
    if measured and not _is_faster(members, train, first.compute, held[0]):
        return
    held[0].say(f"trained together with {len(held) - 1} other run(s), in one pass over the frozen backbone")
    for index, end in fit_stack(members, train, evaluation, first.compute):
        _finish(ready[index], end, memory, len(held))


def _assemble(held: _Held, first: Prepared, train: ImageInputs, evaluation: ImageInputs) -> _Ready:
    """Build a run's model as it would be built alone, or as its checkpoint has it; backbone and data are shared."""
    resolved, device = held.run.spec.resolved, first.compute.device
    # The others were planned with the same data and weights: what holds for the first run holds for them.
    prepared = replace(first, resolved=resolved, run_id=held.run.run_id)
    checkpoint = checkpoint_of(prepared, held.store, held.say)
    progress = None if held.run.fresh else checkpoint.read()
    seed_everything(resolved.spec.seed, device)
    built = build(prepared, train, held.say, progress.facts if progress else {})
    hooks = Hooks(
        say=held.say,
        start=progress.snapshot if progress else None,
        keep=partial(checkpoint.offer, facts=built.facts),
        check=held.claim.check,
    )
    on_epoch = partial(held.emit, "epoch")
    member = Member(built.model, resolved.recipe, resolved.spec.seed, random_states(device), on_epoch, hooks)
    return _Ready(held, prepared, Assembled(built, evaluation, built.model, train, evaluation), member)


def _is_faster(members: Sequence[Member], train: ImageInputs, compute: ComputeContext, first: _Held) -> bool:
    together, apart = seconds_per_step(members, train, compute)
    first.say(f"a step of {len(members)} runs takes {1e3 * together:.1f} ms together, {1e3 * apart:.1f} ms one by one")
    return together < apart


def _finish(one: _Ready, end: Fit | ShipbenchError, memory: PeakMemory, runs: int) -> None:
    """Store how a run ended, unless it is another process's by now."""
    held = one.held
    try:
        held.claim.confirm(held.store, held.run.record_version)
    except ClaimLostError:
        held.emit("lost", None)
        return
    if isinstance(end, ShipbenchError):
        record = fail(held.run, held.store, one.prepared, one_line(end))
    else:
        record = replace(describe(one.prepared, one.assembled, end, memory.bytes()), stacked_runs=runs)
        store_run(held.store, record, one.prepared, one.assembled, end)
    held.emit("finished", record)
