"""One claimed run: resume it, train it, and store its record, done or failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from shipbench.errors import InputError
from shipbench.events import Emitter, Finished, Lost
from shipbench.hardware.determinism import has_turn, seed_everything, undisturbed
from shipbench.hardware.device import as_current
from shipbench.hardware.memory import PeakMemory
from shipbench.methods import Built, releases_of
from shipbench.record import RunRecord
from shipbench.results import claims
from shipbench.results.claims import Claim, ClaimLostError
from shipbench.results.store import Store
from shipbench.runs.checkpoints import Checkpoint, Progress
from shipbench.runs.preparation import Prepared, assemble
from shipbench.runs.recording import Trained, describe, store_run
from shipbench.training.loop import Hooks, fit


@dataclass(frozen=True)
class Start:
    """Where the training of a run starts: its progress, if a checkpoint holds any, and what training calls."""

    emitter: Emitter
    checkpoint: Checkpoint | None = None
    progress: Progress | None = None
    check: Callable[[], None] | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts of the model in the checkpoint (``Built.facts``), empty without one."""
        return {} if self.progress is None else self.progress.facts

    def hooks(self, built: Built) -> Hooks:
        """Return the hooks of training; checkpoints keep the facts of ``built``."""
        keep = None if self.checkpoint is None else partial(self.checkpoint.offer, facts=built.facts)
        return Hooks(self.emitter, None if self.progress is None else self.progress.snapshot, keep, self.check)


def train(prepared: Prepared, start: Start) -> Trained:
    """Build a run's model, train it and evaluate it."""
    resolved, compute = prepared.resolved, prepared.compute
    seed = resolved.spec.seed
    with as_current(compute.device):
        seed_everything(seed, compute.device)
        memory = PeakMemory(compute.device)
        assembled = assemble(prepared, start.emitter, start.facts)
        hooks = start.hooks(assembled.built)
        outcome = fit(assembled.trained, assembled.train, assembled.evaluation, resolved.recipe, compute, seed, hooks)
        return Trained(prepared, assembled, outcome, memory.bytes())


@dataclass(frozen=True)
class Session:
    """A run that this process has claimed; ``record_version`` is that of its record then (``Store.written``)."""

    store: Store
    claim: Claim
    record_version: int | None
    emitter: Emitter

    def execute(self, prepared: Prepared) -> RunRecord:
        """Train, evaluate and store the run, resuming from its checkpoint; return its record.

        Raises ``ClaimLostError`` if another process takes over the run, and stores nothing then.
        """
        return self.finish(train(prepared, self.start(prepared)))

    def start(self, prepared: Prepared) -> Start:
        """Return where the run starts; while it trains, it leaves a checkpoint every few epochs."""
        path = self.store.path("checkpoints", prepared.run_id)
        releases = releases_of(prepared.resolved.method.name)
        checkpoint = Checkpoint(path, prepared.compute.device, self.emitter, releases)
        return Start(self.emitter, checkpoint, checkpoint.read(), self.claim.check)

    def finish(self, trained: Trained) -> RunRecord:
        """Store a trained run and return its record; raise ``ClaimLostError`` if another process has taken it over."""
        record = describe(trained)
        self.confirm()
        store_run(self.store, record, trained)
        return record

    def fail(self, record: RunRecord) -> RunRecord:
        """Store the record of a failed run; raise ``ClaimLostError`` if another process has taken it over."""
        self.confirm()
        # In this order, because a checkpoint beside a failed record belongs to a later attempt.
        self.store.remove("checkpoints", record.run_id)
        self.store.write(record)
        return record

    def confirm(self) -> None:
        """Raise ``ClaimLostError`` unless this process still holds the claim and the record is unchanged."""
        self.claim.confirm(self.store, self.record_version)

    def conclude(self, store_record: Callable[[], RunRecord]) -> None:
        """Emit the end of the run: ``Finished`` with the record that ``store_record`` stores, or ``Lost``."""
        run_id = self.emitter.run_id
        try:
            record = store_record()
        except ClaimLostError:
            self.emitter.emit(Lost(run_id))
        else:
            self.emitter.emit(Finished(run_id, record))


@contextmanager
def claimed(store: Store, record_version: int | None, emitter: Emitter) -> Iterator[Session | None]:
    """Claim the emitter's run for the block and yield its session.

    Yields None if another live process holds the claim, or if the record is no longer ``record_version``. Raises
    ``StoreError`` if the results folder cannot be written to.
    """
    claim = claims.take(store.root, emitter.run_id)
    if claim is None:
        yield None
        return
    with claim:
        # The process that held the claim before may have stored the record on another machine.
        store.refresh(emitter.run_id)
        current = store.written(emitter.run_id) == record_version
        yield _open(Session(store, claim, record_version, emitter)) if current else None


@contextmanager
def claimed_after_waiting(store: Store, emitter: Emitter) -> Iterator[Session]:
    """Claim the emitter's run for the block, an ``undisturbed`` one, and yield its session.

    Waits while another live process holds the claim. Raises ``StoreError`` if the results folder cannot be written to,
    and ``InputError`` in a listener of the run itself, which would wait for its own end.
    """
    run_id = emitter.run_id
    if has_turn() and claims.is_held_here(store.root, run_id):
        raise InputError(f"run {run_id} cannot be started by its own listener before it has ended")

    def on_wait(holder: str) -> None:
        emitter.note(f"another process ({holder}) is executing this run; waiting for it")

    waiting = claims.pauses(store.root, run_id, on_wait)
    while True:
        # In this order: the thread that has its turn may wait for the claim, in a listener that starts this run too.
        with undisturbed(), claimed(store, store.written(run_id), emitter) as session:
            if session is not None:
                yield session
                return
        next(waiting)


def _open(session: Session) -> Session:
    """Remove the half-written files of a process that was killed; only the claim's holder may do so."""
    session.store.sweep(session.emitter.run_id)
    return session
