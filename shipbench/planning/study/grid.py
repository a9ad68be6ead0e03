"""The grid of a study: every run once, with its state, and the runs that wait for a choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from shipbench.planning.grid import seed_by_seed
from shipbench.planning.plan import Plan, PlannedRun, State
from shipbench.planning.study.follow_ups import FollowUpSection, RequestedFollowUp, plan_follow_up
from shipbench.planning.study.parts import Request, Requested
from shipbench.planning.tuning import Decision, decide
from shipbench.results.store import Store
from shipbench.settings import canonical_json
from shipbench.spec import RunSpec

MakePlan = Callable[[Sequence[RunSpec]], Plan]


@dataclass(frozen=True)
class PartDecision:
    """What was decided about a search of ``part``."""

    part: Requested
    made: Decision

    @property
    def final_specs(self) -> list[RunSpec]:
        """The winner's runs on all training images."""
        return self.made.final_specs(self.part.final_seeds)


@dataclass(frozen=True)
class Section:
    """The runs of the part called ``part``, or of its winners.

    ``repeated`` of the ``runs`` belong to an earlier section as well. ``waiting`` holds the specs of runs whose
    settings are chosen later: for each search, those that each of its points would have.
    """

    part: str
    name: str
    runs: tuple[PlannedRun, ...]
    repeated: frozenset[str] = frozenset()
    waiting: tuple[tuple[tuple[RunSpec, ...], ...], ...] = ()

    @property
    def waiting_runs(self) -> int:
        """The number of runs whose settings are chosen later."""
        return sum(len(points[0]) for points in self.waiting)


@dataclass(frozen=True)
class StudyGrid:
    """The plan of a study: ``first`` holds all runs that are known, ``then`` those of winners already chosen.

    ``unread`` says why records could not be looked up; it is empty if they were. ``follow_ups`` read these runs.
    """

    request: Request
    first: Plan
    then: Plan
    sections: tuple[Section, ...]
    unread: str = ""
    chosen_ids: frozenset[str] = field(default=frozenset())
    follow_ups: tuple[FollowUpSection, ...] = ()

    @property
    def runs(self) -> list[PlannedRun]:
        """Every run of both plans once."""
        return list({run.run_id: run for run in (*self.first.runs, *self.then.runs)}.values())

    @property
    def to_do(self) -> list[PlannedRun]:
        """The runs of both plans that are to be executed."""
        return [run for run in self.runs if run.run_id in self.chosen_ids]

    @property
    def waiting_runs(self) -> int:
        """The number of runs whose settings are chosen later."""
        return sum(section.waiting_runs for section in self.sections)


def plan_study(request: Request, make: MakePlan, store: Store) -> StudyGrid:
    """Return the grid of a request; ``make`` plans specs and looks up their records in ``store``."""
    first = make(request.specs)
    decisions = decide_parts(request.parts, first, store)
    then = make(winners(decisions))
    return _grid(request, first, then, decisions, store)


def plan_without_records(request: Request, reason: str) -> StudyGrid:
    """Return the grid of a request whose data or weights are not here, with every run to do.

    Its run ids hash everything but data and weights: enough to see which parts share runs.
    """
    return _grid(request, _without_records(request.specs), Plan((), ()), (), unread=reason)


def _without_records(specs: Sequence[RunSpec]) -> Plan:
    ids = {spec: _provisional_id(spec) for spec in specs}
    runs = tuple({ids[spec]: PlannedRun(spec, ids[spec], State.TO_DO) for spec in specs}.values())
    return Plan(runs, runs, ids)


def _provisional_id(spec: RunSpec) -> str:
    weights = canonical_json([spec.checkpoint])
    # An id names no task outside the catalogue, so their places stand for their data.
    data = canonical_json(spec.resolved.task.key)
    return spec.resolved.run_id(data_fingerprint=data, backbone_sha256=weights, precision=spec.precision)


def decide_parts(parts: Sequence[Requested], plan: Plan, store: Store) -> list[PartDecision]:
    """Return the decision of every search all of whose trials have a record that the plan does not repeat."""
    due = {run.run_id for run in plan.chosen}
    return [
        PartDecision(part, decide(search, plan.ids, store))
        for part in parts
        for search in part.searches
        if due.isdisjoint(plan.ids[spec] for spec in search.specs)
    ]


def winners(decisions: Sequence[PartDecision]) -> list[RunSpec]:
    """Return the specs of all winners, part by part and seed by seed within a part."""
    by_part = groupby(decisions, key=lambda decision: decision.part.part.name)
    return [
        spec
        for _, decided in by_part
        for spec in seed_by_seed(spec for decision in decided for spec in decision.final_specs)
    ]


def _grid(
    request: Request,
    first: Plan,
    then: Plan,
    decisions: Sequence[PartDecision],
    store: Store | None = None,
    *,
    unread: str = "",
) -> StudyGrid:
    runs = {run.run_id: run for run in (*then.runs, *first.runs)}
    sections: list[Section] = []
    earlier: set[str] = set()
    for part, name, ids, waiting in _named_ids(request, {**then.ids, **first.ids}, decisions):
        repeated = frozenset(earlier.intersection(ids))
        sections.append(Section(part, name, tuple(runs[i] for i in ids), repeated, waiting))
        earlier.update(ids)
    chosen = frozenset(run.run_id for run in (*first.chosen, *then.chosen))
    follow_ups = tuple(_follow_up(each, sections, chosen, store) for each in request.follow_ups)
    return StudyGrid(request, first, then, tuple(sections), unread, chosen, follow_ups)


def _follow_up(
    requested: RequestedFollowUp, sections: Sequence[Section], chosen: frozenset[str], store: Store | None
) -> FollowUpSection:
    read = [section for section in sections if section.part in requested.part.sources]
    runs = [run for section in read for run in section.runs]
    later = [spec for section in read for points in section.waiting for spec in points[0]]
    return plan_follow_up(requested, runs, later, lambda run: run.run_id in chosen, store)


def _named_ids(
    request: Request, ids: Mapping[RunSpec, str], decisions: Sequence[PartDecision]
) -> Iterator[tuple[str, str, list[str], tuple[tuple[tuple[RunSpec, ...], ...], ...]]]:
    """Yield the part, the name, the run ids and the waiting specs of every section."""
    for part in request.parts:
        trials = list(dict.fromkeys(ids[spec] for spec in part.specs))
        name = part.part.name
        yield name, f"{name}: trials" if part.searches else name, trials, ()
        if part.searches and part.final_seeds:
            made = [decision for decision in decisions if decision.part is part]
            decided = [decision.made.search for decision in made]
            final = dict.fromkeys(ids[spec] for decision in made for spec in decision.final_specs)
            waiting = tuple(
                tuple(tuple(search.final_specs(i, part.final_seeds)) for i in range(len(search.points)))
                for search in part.searches
                if not any(search is other for other in decided)
            )
            yield name, f"{name}: chosen", list(final), waiting
