"""From the parts of a study to specs and searches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shipbench.errors import InputError
from shipbench.methods import get_method, parse_methods
from shipbench.planning.ablation import make_variants
from shipbench.planning.grid import make_grid, parse_seeds, parse_shots, seed_by_seed
from shipbench.planning.preflight import preflight
from shipbench.planning.study.file import AblatePart, FollowUp, Part, Study, TunePart, located
from shipbench.planning.study.follow_ups import RequestedFollowUp, request_follow_up, with_images
from shipbench.planning.tuning import Search, make_searches
from shipbench.settings import comma_list, option_text
from shipbench.spec import RunSpec
from shipbench.tasks import Task, parse_tasks


@dataclass(frozen=True)
class Requested:
    """What a part asks for: ``specs`` that are known beforehand, and the ``searches`` whose winners are trained then.

    The specs of a tuning are its trials, scored with ``tuning_seeds``; the winner of each search is trained for every
    seed in ``final_seeds``.
    """

    part: Part
    specs: tuple[RunSpec, ...]
    searches: tuple[Search, ...] = ()
    tuning_seeds: tuple[int, ...] = ()
    final_seeds: tuple[int, ...] = ()

    @property
    def tested_specs(self) -> list[RunSpec]:
        """The specs of the runs that are tested; of a search, those that its first point would have."""
        if not self.searches:
            return list(self.specs)
        return [spec for search in self.searches for spec in search.final_specs(0, self.final_seeds)]


@dataclass(frozen=True)
class Request:
    """The parts of a study as specs; ``unopened`` says why data could not be opened, and is empty if all were.

    ``notes`` are those of the sources, in a dry run.
    """

    parts: tuple[Requested, ...]
    unopened: str = ""
    follow_ups: tuple[RequestedFollowUp, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def specs(self) -> list[RunSpec]:
        """The specs of all parts that are known beforehand."""
        return [spec for part in self.parts for spec in part.specs]


def request(
    study: Study,
    base: RunSpec,
    results: Path | None,
    *,
    elsewhere: bool = False,
    without_data: bool = False,
    refused: Sequence[str] = (),
) -> Request:
    """Return the specs of a study; ``base`` gives what belongs to the machine (``data``, ``device``).

    Data, settings and checkpoints are checked as by ``shipbench.planning.preflight``, and so is the folder ``results``
    unless it is None. With ``without_data``, catalogued tasks whose data cannot be opened keep the sizes of the
    catalogue. Raises one ``InputError`` that names the problems of every part after those in ``refused``.
    """
    made: list[Requested] = []
    problems = list(refused)
    unopened: list[str] = []
    notes: list[str] = []
    follow_ups: list[RequestedFollowUp] = []
    may_lack = unopened if without_data else None
    parts: list[Part | FollowUp] = [*study.parts, *study.follow_ups]
    for part in parts:
        try:
            with located(f"part {part.name!r} of {study.file}"):
                if isinstance(part, FollowUp):
                    # Without a part that was refused, it would be refused for that reason alone.
                    if {each.part.name for each in made}.issuperset(part.sources):
                        follow_ups.append(_checked_follow_up(part, made, base.data, may_lack))
                else:
                    made.append(_checked(part, base, results, may_lack, notes.append, elsewhere=elsewhere))
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(*problems)
    return Request(tuple(made), unopened[0] if unopened else "", tuple(follow_ups), tuple(notes))


def _checked_follow_up(
    part: FollowUp, parts: Sequence[Requested], data: Path | None, unopened: list[str] | None
) -> RequestedFollowUp:
    """Return what a follow-up of ``parts`` asks for; with ``unopened``, collect why images could not be opened."""
    specs = [spec for each in parts if each.part.name in part.sources for spec in each.tested_specs]
    requested = request_follow_up(part, specs)
    try:
        return with_images(requested, data)
    except InputError as error:
        if unopened is None or requested.on is None or not requested.on.catalogued:
            raise
        unopened.append(str(error))
        return requested


def _checked(
    part: Part,
    base: RunSpec,
    results: Path | None,
    unopened: list[str] | None,
    note: Callable[[str], object],
    *,
    elsewhere: bool,
) -> Requested:
    """Return what a part asks for, after ``preflight``; with ``unopened``, collect why data could not be opened."""
    template, tasks, shots = _template(part, base), parse_tasks(part.tasks), parse_shots(part.shots)

    def make(opened: Sequence[Task]) -> Requested:
        return _requested(part, opened, template, shots)

    try:
        return preflight(make, template, tasks, results, shots=shots, elsewhere=elsewhere, note=note)
    except InputError as error:
        if unopened is None or not all(task.catalogued for task in tasks):
            raise
        # Settings that do not fit are refused here as well.
        made = make(tasks)
        unopened.append(str(error))
        return made


def _template(part: Part, base: RunSpec) -> RunSpec:
    """Return a spec with the values that all runs of a part share."""
    return replace(
        base,
        recipe=part.recipe,
        backbone=part.backbone,
        checkpoint=part.checkpoint,
        precision=part.precision,
        protocol="tuning" if isinstance(part, TunePart) else "final",
    )


def _requested(part: Part, tasks: Sequence[Task], template: RunSpec, shots: Sequence[int | None]) -> Requested:
    values = _values(part)
    seeds = parse_seeds(part.seeds, "seeds")
    if isinstance(part, TunePart):
        return _tuning(part, tasks, template, shots, values, seeds)
    methods = parse_methods(part.method_text)
    variants = _variants(part, values) if isinstance(part, AblatePart) else [values]
    grids = (make_grid(methods, tasks, seeds, template, variant, shots) for variant in variants)
    return Requested(part, tuple(seed_by_seed(spec for grid in grids for spec in grid)))


def _values(part: Part) -> dict[str, Any]:
    if part.epochs is None:
        return dict(part.set)
    if "epochs" in part.set:
        raise InputError("epochs is given twice: as a key of the part and in set")
    return {**part.set, "epochs": part.epochs}


def _variants(part: AblatePart, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    method, sweeps = get_method(part.method), _axes(part.sweep)
    return make_variants(method, values, part.switches, part.mode, sweeps, multiply=part.product)


def _tuning(
    part: TunePart,
    tasks: Sequence[Task],
    template: RunSpec,
    shots: Sequence[int | None],
    values: Mapping[str, Any],
    seeds: Sequence[int],
) -> Requested:
    trying = seeds[:1] if part.tuning_seeds is None else parse_seeds(part.tuning_seeds, "tuning_seeds")
    grids = comma_list(part.grid) + _axes(part.axes)
    searches = [
        search
        for number in shots
        for search in make_searches(
            parse_methods(part.methods),
            tasks,
            grids,
            trying,
            replace(template, shots=number),
            values,
            common=part.common,
        )
    ]
    specs = tuple(spec for search in searches for spec in search.specs)
    return Requested(part, specs, tuple(searches), tuple(trying), () if part.choose_only else tuple(seeds))


def _axes(table: Mapping[str, Any]) -> list[str]:
    """Return a table of values as the ``KEY=V1,V2`` texts of the command line."""
    return [f"{key}={option_text(values)}" for key, values in table.items()]
