"""From specs to a plan: find out what each run is, look it up in the store, and make its data ready."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from shipbench.errors import InputError
from shipbench.hardware.precision import precision_elsewhere, precision_on
from shipbench.planning.identity import make_identifier
from shipbench.results.store import Store
from shipbench.spec import RunSpec


def make_plan(
    specs: Iterable[RunSpec], store: Store, *, force: bool, retry_failed: bool, elsewhere: bool = False
) -> Plan:
    """Look up every spec in the store; equal specs are one run.

    ``elsewhere`` is for runs on other machines, whose device need not be here. Raises ``InputError`` for a backbone,
    data or a device that are not there or do not fit.
    """
    identify = make_identifier(precision_elsewhere if elsewhere else precision_on)
    runs: dict[str, PlannedRun] = {}
    for spec in specs:
        run_id, hashes = identify(spec)
        if run_id not in runs:
            # The time first: a record that is written in between is then one that came after.
            record_version = store.written(run_id)
            runs[run_id] = PlannedRun(spec, run_id, _state(store, run_id), record_version, force, **hashes)
    wanted = {State.TO_DO} | ({State.FAILED} if retry_failed else set())
    chosen = tuple(run for run in runs.values() if force or run.state in wanted)
    return Plan(tuple(runs.values()), chosen)


def _state(store: Store, run_id: str) -> State:
    return {None: State.TO_DO, "done": State.DONE, "failed": State.FAILED}[store.status(run_id)]


def require_runs(plan: Plan) -> None:
    """Refuse an empty plan."""
    if not plan.runs:
        raise InputError("there is nothing to run: no method, task or seed is left")


class State(Enum):
    """What a plan does with a run."""

    TO_DO = "to do"
    DONE = "done"
    FAILED = "failed before"


@dataclass(frozen=True)
class PlannedRun:
    """A spec, its run id, and what is known of it.

    ``record_version`` tells the record that was there when the run was planned (``Store.written``) from one that
    another process writes later. A ``fresh`` run does not start from a checkpoint. The fingerprint of the data and
    the SHA-256 of the backbone's weights (hex) are those that the run was planned with; empty where unknown.
    """

    spec: RunSpec
    run_id: str
    state: State
    record_version: int | None = None
    fresh: bool = False
    data_fingerprint: str = ""
    backbone_sha256: str = ""

    @property
    def title(self) -> str:
        """A short name for people."""
        switches = self.spec.resolved.switches
        variant = f" [{switches}]" if switches else ""
        return f"{self.spec.method}{variant} on {self.spec.task}, seed {self.spec.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs that were asked for, in order; ``chosen`` are the ones that will be carried out."""

    runs: tuple[PlannedRun, ...]
    chosen: tuple[PlannedRun, ...]

    @property
    def left_as_failed(self) -> list[PlannedRun]:
        """The runs that failed before and are not to be repeated."""
        chosen = {run.run_id for run in self.chosen}
        return [run for run in self.runs if run.state is State.FAILED and run.run_id not in chosen]

    def summary(self) -> str:
        """Say in one line what will happen."""
        skipped, failed = len(self.runs) - len(self.chosen), len(self.left_as_failed)
        hint = f"; {failed} failed before (--retry-failed runs them again)" if failed else ""
        runs = "1 run" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        return f"{runs}: {len(self.chosen)} to do, {skipped - failed} done{hint}"
