"""From specs to a plan: identify every run and look it up in the results folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from shipbench.backbones import Origin
from shipbench.counts import counted
from shipbench.errors import InputError
from shipbench.hardware.precision import precision_elsewhere, precision_on
from shipbench.planning.identity import UnusableBackboneError, make_identifier
from shipbench.results.plans import PlanEntry
from shipbench.results.store import Store
from shipbench.spec import RunSpec


class UnusableMethodsError(InputError):
    """Some ``methods`` of a plan cannot use a backbone; the message names all of them, and why."""

    def __init__(self, errors: Iterable[UnusableBackboneError]) -> None:
        together: dict[tuple[str, str], dict[str, None]] = {}
        for error in errors:
            together.setdefault((error.backbone, error.reason), {}).update(dict.fromkeys(error.methods))
        super().__init__("; ".join(str(UnusableBackboneError([*names], *why)) for why, names in together.items()))
        self.methods = tuple(dict.fromkeys(name for names in together.values() for name in names))


def make_plan(
    specs: Iterable[RunSpec],
    store: Store,
    *,
    force: bool,
    retry_failed: bool,
    elsewhere: bool = False,
    say: Callable[[str], None] | None = None,
) -> Plan:
    """Return the plan for ``specs``: equal specs are one run, whose record is looked up in ``store``.

    ``force`` chooses every run, ``retry_failed`` also those that failed before. With ``elsewhere``, runs execute on
    other machines, so their device need not be on this one. ``say``, if given, receives lines about the weights in
    checkpoint files. Raises ``InputError`` if a backbone, data or a device is missing or does not fit, of methods that
    cannot use a backbone ``UnusableMethodsError``, which names all of them.
    """
    identify = make_identifier(precision_elsewhere if elsewhere else precision_on, say)
    runs: dict[str, PlannedRun] = {}
    ids: dict[RunSpec, str] = {}
    unusable: list[UnusableBackboneError] = []
    for spec in specs:
        try:
            identity = identify(spec)
        except UnusableBackboneError as error:
            unusable.append(error)
            continue
        run_id = ids[spec] = identity.run_id
        if run_id not in runs:
            # Read before the state, so that a record written in between counts as newer.
            record_version = store.written(run_id)
            runs[run_id] = PlannedRun(
                spec,
                run_id,
                _state(store, run_id),
                record_version,
                fresh=force,
                data_fingerprint=identity.data_fingerprint,
                origin=identity.origin,
                precision=identity.precision,
            )
    if unusable:
        raise UnusableMethodsError(unusable)
    due = {State.TO_DO} | ({State.FAILED} if retry_failed else set())
    chosen = tuple(run for run in runs.values() if force or run.state in due)
    return Plan(tuple(runs.values()), chosen, ids)


def _state(store: Store, run_id: str) -> State:
    return {None: State.TO_DO, "done": State.DONE, "failed": State.FAILED}[store.status(run_id)]


class State(Enum):
    """What the results folder says about a run."""

    TO_DO = "to do"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class PlannedRun:
    """A spec, its run id, and its state when it was planned.

    ``record_version`` identifies the record that existed at planning (``Store.written``), so a record that another
    process writes later is recognised. A ``fresh`` run resumes from no checkpoint that an earlier plan has left.
    ``data_fingerprint`` (hex) and ``origin`` are those of the data and weights at planning, and ``precision`` is
    ``fp32`` or ``bf16``; all three are empty or None if unknown. A run that has to be executed ``alone`` shares its
    process and its passes with no other.
    """

    spec: RunSpec
    run_id: str
    state: State
    record_version: int | None = None
    fresh: bool = False
    data_fingerprint: str = ""
    origin: Origin | None = None
    precision: str = ""
    alone: bool = False

    @property
    def backbone_sha256(self) -> str:
        """The hash (hex) of the weights at planning; empty if it is unknown."""
        return self.origin.sha256 if self.origin else ""

    @property
    def title(self) -> str:
        """A short description: method, switches, task, shots and seed."""
        switches = self.spec.resolved.switches
        variant = f" [{switches}]" if switches else ""
        shots = f", {self.spec.shots} per class" if self.spec.shots else ""
        return f"{self.spec.method}{variant} on {self.spec.resolved.task.name}{shots}, seed {self.spec.seed}"

    @property
    def entry(self) -> PlanEntry:
        """What other processes are told about the run while it is to come."""
        resolved = self.spec.resolved
        return PlanEntry(
            self.run_id,
            self.title,
            self.spec.method,
            resolved.task.name,
            self.spec.seed,
            resolved.recipe.epochs,
            self.record_version,
        )


@dataclass(frozen=True)
class Plan:
    """All requested runs in order, those ``chosen`` for execution, and the run id of every requested spec."""

    runs: tuple[PlannedRun, ...]
    chosen: tuple[PlannedRun, ...]
    ids: Mapping[RunSpec, str] = field(default_factory=dict)

    @property
    def left_as_failed(self) -> list[PlannedRun]:
        """The runs that failed before and were not chosen again."""
        chosen = {run.run_id for run in self.chosen}
        return [run for run in self.runs if run.state is State.FAILED and run.run_id not in chosen]

    def summary(self) -> str:
        """Return one line with the numbers of runs to do, done and failed before."""
        skipped, failed = len(self.runs) - len(self.chosen), len(self.left_as_failed)
        hint = f"; {failed} failed before (--retry-failed runs them again)" if failed else ""
        return f"{counted(len(self.runs), 'run')}: {len(self.chosen)} to do, {skipped - failed} done{hint}"
