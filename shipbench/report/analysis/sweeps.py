"""Arms with varied settings: families of them, and sweeps of a single setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.configurations import Configuration, difference, sortable
from shipbench.report.analysis.differences import shared_tasks
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import setting_name
from shipbench.report.wording.numbers import setting
from shipbench.statistics import sample_deviation


@dataclass(frozen=True)
class SweepPoint:
    """One value of a swept setting, with mean accuracy in percent over the shared tasks and its standard deviation."""

    value: Any
    mean: float
    deviation: float
    default: bool


@dataclass(frozen=True)
class Sweep:
    """Arms that differ in exactly one setting, compared over the tasks they share.

    ``series`` is the short label of the unchanged arm, whose varied settings the sweep shows.
    """

    label: str
    series: str
    method: str
    key: str
    tasks: int
    points: tuple[SweepPoint, ...]


def sweeps(study: Study, suite: str) -> list[Sweep]:
    """Return every sweep of a suite: two or more arms that differ in a single setting."""
    return [
        sweep
        for family in families(study, suite)
        for key in sorted({key for arm in family for key, _ in arm.changes})
        for sweep in _sweeps_over(study, family, key)
    ]


def families(study: Study, suite: str) -> list[list[Arm]]:
    """Return, for each setup and set of switches with varied settings, the unchanged arm and its variants."""
    groups: dict[tuple[Any, ...], list[Arm]] = {}
    for arm in study.arms_of(suite, main=False):
        groups.setdefault((arm.setup, arm.copy, arm.switches), []).append(arm)
    return [family for family in groups.values() if any(arm.changes for arm in family)]


def _sweeps_over(study: Study, family: Sequence[Arm], key: str) -> list[Sweep]:
    """Group the arms by all their changes except ``key``; every group with two or more points is a sweep."""
    groups: dict[Configuration, list[Arm]] = {}
    for arm in family:
        groups.setdefault(tuple(pair for pair in arm.changes if pair[0] != key), []).append(arm)
    series = _least_changed(family).short_label
    candidates = [_sweep(study, arms, rest, key, series) for rest, arms in groups.items() if len(arms) > 1]
    return [sweep for sweep in candidates if len(sweep.points) > 1]


def _least_changed(arms: Sequence[Arm]) -> Arm:
    return min(arms, key=lambda arm: len(arm.changes))


def _sweep(study: Study, arms: Sequence[Arm], rest: Configuration, key: str, series: str) -> Sweep:
    values = {arm: _value(study, arm, key) for arm in arms}
    switched = {} if rest else _switched(study, arms, key)
    values |= {arm: value for arm, value in switched.items() if value not in values.values()}
    tasks = shared_tasks(study, list(values))
    return Sweep(_label(arms, rest), series, arms[0].method, key, len(tasks), _points(study, values, tasks))


def _switched(study: Study, arms: Sequence[Arm], key: str) -> dict[Arm, Any]:
    """Return arms that count as ablations only because of their value of ``key``, such as a loss weight of 0."""
    main = next((arm for arm in arms if arm.main), None)
    if main is None:
        return {}
    reference = study.settings_of(main)
    values = {}
    for arm in study.arms_of(main.suite, main=False):
        if arm.switches and not arm.changes and (arm.setup, arm.copy) == (main.setup, main.copy):
            settings = study.settings_of(arm)
            changes = {difference(settings[task], reference[task]) for task in settings.keys() & reference.keys()}
            change = changes.pop() if len(changes) == 1 else ()
            if len(change) == 1 and change[0][0] == key:
                values[arm] = change[0][1]
    return values


def _label(arms: Sequence[Arm], rest: Configuration) -> str:
    bare = _least_changed(arms).label
    extra = ", ".join(f"{setting_name(key)} {setting(value)}" for key, value in rest)
    return bare if not rest or extra in bare else f"{bare}, {extra}"


def _points(study: Study, values: Mapping[Arm, Any], tasks: Sequence[str]) -> tuple[SweepPoint, ...]:
    points = []
    for arm, value in values.items():
        table = study.accuracies(arm).reindex(columns=list(tasks))
        deviation = sample_deviation(list(table.dropna().mean(axis=1)))
        if value is not None and tasks and len(table):
            points.append(SweepPoint(value, float(table.mean().mean()), deviation, arm.main))
    return tuple(sorted(points, key=lambda point: sortable(point.value)))


def _value(study: Study, arm: Arm, key: str) -> Any:
    """Return the value of a setting in an arm; None if a recipe sets it per task."""
    values = {dict(settings).get(key) for settings in study.settings_of(arm).values()}
    return values.pop() if len(values) == 1 else None
