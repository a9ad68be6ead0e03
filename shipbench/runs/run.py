"""Execute one run from Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from shipbench.backbones import origin_of
from shipbench.errors import InputError
from shipbench.events import Emitter, Event, Finished, Listener, Note, Started
from shipbench.hardware.determinism import has_turn, undisturbed
from shipbench.record import RunRecord
from shipbench.results.store import Store
from shipbench.runs.preparation import Prepared, prepare
from shipbench.runs.recording import describe
from shipbench.runs.session import Start, claimed_after_waiting, train
from shipbench.runtime import console
from shipbench.spec import RunSpec
from shipbench.training.snapshot import random_states, set_random_states


def run(
    spec: RunSpec, *, results: Path | str | None = None, force: bool = False, listener: Listener | None = None
) -> RunRecord:
    """Execute one run and return its record; print nothing.

    With a ``results`` folder, store the record there, and return the stored record of a run that is done already,
    unless ``force``. If another process is executing the run in that folder, wait for it. ``listener`` receives the
    events of the run, and as notes the lines that a command would print. Runs in several threads of a process take
    turns. Raises ``InputError`` for a spec that cannot be executed and for a folder that cannot be written to,
    ``ShipbenchError`` if training fails.
    """
    if not isinstance(spec, RunSpec):
        raise InputError(f"run takes a RunSpec, as in run(RunSpec('ship', 'demo-tiny')); {spec!r:.60} is none")
    listener = None if listener is None else _without_draws(listener)
    with console.redirected(console.discard if listener is None else _noting(listener)):
        if results is None:
            prepared = _prepared(spec)
            return _run_without_store(prepared, Emitter(prepared.run_id, listener))
        store = Store(results)
        store.check_writable()
        prepared = _prepared(spec)
        return _run_in(store, prepared, Emitter(prepared.run_id, listener), force=force)


def _noting(listener: Listener) -> Callable[[str], None]:
    """Return a function that passes a line to the listener as a note."""
    return lambda line: listener(Note(None, line))


def _without_draws(listener: Listener) -> Listener:
    """Return a listener whose random numbers do not take those of the run."""

    def receive(event: Event, /) -> None:
        if not has_turn():
            # The generators may be those of another thread's run, which draws from them meanwhile.
            listener(event)
            return
        kind = "cuda" if torch.cuda.is_initialized() else "mps" if torch.backends.mps.is_available() else "cpu"
        states = random_states(torch.device(kind))
        listener(event)
        set_random_states(states, torch.device(kind))

    return receive


def _prepared(spec: RunSpec) -> Prepared:
    with undisturbed():
        prepared = prepare(spec)
    if spec.checkpoint is not None:
        recipe = spec.resolved.recipe
        for line in origin_of(prepared.backbone).lines(recipe.mean, recipe.std):
            console.say(line)
    return prepared


def _run_in(store: Store, prepared: Prepared, emitter: Emitter, *, force: bool) -> RunRecord:
    record_version = store.written(prepared.run_id)
    record = None if force else store.read(prepared.run_id)
    if record is not None and record.done:
        return record
    with claimed_after_waiting(store, emitter) as session:
        # Another process may have stored a record since then.
        record = None if session.record_version == record_version else store.read(prepared.run_id)
        if record is not None and record.done:
            return record
        if force:
            store.remove("checkpoints", prepared.run_id)
        emitter.emit(Started(prepared.run_id))
        record = session.execute(prepared)
    emitter.emit(Finished(prepared.run_id, record))
    return record


def _run_without_store(prepared: Prepared, emitter: Emitter) -> RunRecord:
    with undisturbed():
        emitter.emit(Started(prepared.run_id))
        record = describe(train(prepared, Start(emitter)))
    emitter.emit(Finished(prepared.run_id, record))
    return record
