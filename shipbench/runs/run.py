"""Spec to record: the one path that every run takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

from shipbench.hardware.determinism import seed_everything
from shipbench.hardware.memory import PeakMemory
from shipbench.record import RunRecord
from shipbench.results import claims
from shipbench.results.store import Store
from shipbench.runs.checkpoints import Checkpoint
from shipbench.runs.preparation import Prepared, Say, assemble, prepare, silent
from shipbench.runs.recording import describe, store_run
from shipbench.spec import RunSpec
from shipbench.training.history import EpochReport
from shipbench.training.loop import Hooks, fit

OnEpoch = Callable[[EpochReport], None]


def _nothing() -> None:
    return None


def run(
    spec: RunSpec,
    *,
    results: Path | str | None = None,
    force: bool = False,
    say: Say = silent,
    on_epoch: OnEpoch = silent,
) -> RunRecord:
    """Carry out one run and return its record.

    With a ``results`` folder the record is stored there, and a run whose record is there already is not repeated
    unless ``force``. A run that another process is doing there is waited for. Raises ``InputError`` for a spec that
    cannot be carried out or a folder that cannot be written to, ``ShipbenchError`` if training fails.
    """
    if results is None:
        return carry_out(prepare(spec), None, say, on_epoch)
    store = Store(results)
    store.check_writable()
    prepared = prepare(spec)
    before = store.written(prepared.run_id)
    record = None if force else store.read(prepared.run_id)
    if record is not None and record.done:
        return record
    with claims.wait_for(store.root, prepared.run_id) as claim:
        record_version = store.written(prepared.run_id)
        record = None if record_version == before else store.read(prepared.run_id)
        if record is not None and record.done:
            return record
        store.sweep(prepared.run_id)
        confirm = partial(claim.confirm, store, record_version)
        return carry_out(prepared, store, say, on_epoch, fresh=force, check=claim.check, confirm=confirm)


def carry_out(
    prepared: Prepared,
    store: Store | None,
    say: Say = silent,
    on_epoch: OnEpoch = silent,
    *,
    fresh: bool = False,
    check: Callable[[], None] = _nothing,
    confirm: Callable[[], None] = _nothing,
) -> RunRecord:
    """Train, evaluate and store one run.

    With a ``store``, the run leaves a checkpoint every few epochs and goes on from one that an earlier process left,
    unless it is to be ``fresh``. ``check`` is called before every step and ``confirm`` before anything is stored; what
    they raise stops the run.
    """
    resolved, compute = prepared.resolved, prepared.compute
    checkpoint = None if store is None else checkpoint_of(prepared, store, say)
    progress = None if checkpoint is None or fresh else checkpoint.read()
    seed_everything(resolved.spec.seed, compute.device)
    memory = PeakMemory(compute.device)
    ready = assemble(prepared, say, known=progress.facts if progress else {})
    hooks = Hooks(say=say, start=progress.snapshot if progress else None, check=check)
    if checkpoint is not None:
        hooks = dataclasses.replace(hooks, keep=partial(checkpoint.offer, facts=ready.built.facts))
    seed = resolved.spec.seed
    done = fit(ready.trained, ready.train, ready.evaluation, resolved.recipe, compute, seed, on_epoch, hooks)
    record = describe(prepared, ready, done, memory.bytes())
    if store is not None:
        confirm()
        store_run(store, record, prepared, ready, done)
    return record


def checkpoint_of(prepared: Prepared, store: Store, say: Say) -> Checkpoint:
    """Return the checkpoint of a run, whether or not there is one yet."""
    path = store.path("checkpoints", prepared.run_id)
    return Checkpoint(path, prepared.run_id, prepared.compute.device, say)
