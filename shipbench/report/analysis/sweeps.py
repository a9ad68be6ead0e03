"""Sweeps of one setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shipbench.report.analysis.arms import Arm, difference, sortable
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import setting_name
from shipbench.report.wording.numbers import setting
from shipbench.statistics import sample_deviation


@dataclass(frozen=True)
class SweepPoint:
    """One value of a swept setting: mean accuracy in percent over the shared tasks, and its deviation."""

    value: Any
    mean: float
    deviation: float
    default: bool


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in exactly one setting, compared over the tasks that they all share."""

    label: str
    method: str
    key: str
    tasks: int
    points: tuple[SweepPoint, ...]


def sweeps(study: Study, suite: str) -> list[Sweep]:
    """Return every sweep of the suite: two or more arms that differ in one setting alone."""
    found = []
    for family in families(study, suite):
        keys = sorted({key for arm in family for key, _ in arm.changes})
        found += [sweep for key in keys for sweep in _sweeps_over(study, family, key)]
    return found


def families(study: Study, suite: str) -> list[list[Arm]]:
    """Return, per setup, its unchanged arm and every arm with changed settings (switches alike)."""
    arms = study.arms_of(suite, main=False)
    groups: dict[tuple[Any, ...], list[Arm]] = {}
    for arm in arms:
        groups.setdefault((arm.setup, arm.switches), []).append(arm)
    return [family for family in groups.values() if any(arm.changes for arm in family)]


def shared_tasks(study: Study, arms: Sequence[Arm]) -> list[str]:
    """Return the tasks that every arm has results for, sorted."""
    columns = [set(study.accuracies(arm).columns) for arm in arms]
    return sorted(set.intersection(*columns)) if columns else []


def _sweeps_over(study: Study, family: Sequence[Arm], key: str) -> list[Sweep]:
    """Group the arms by everything they change apart from ``key``; a group of two or more is a sweep."""
    groups: dict[tuple[Any, ...], list[Arm]] = {}
    for arm in family:
        groups.setdefault(tuple(pair for pair in arm.changes if pair[0] != key), []).append(arm)
    found = []
    for rest, arms in groups.items():
        if len(arms) > 1:
            values = {arm: _value(study, arm, key) for arm in arms}
            switched = {} if rest else _switched(study, arms, key)
            values |= {arm: value for arm, value in switched.items() if value not in values.values()}
            points = _points(study, values, key)
            tasks = len(shared_tasks(study, list(values)))
            found += [Sweep(_label(arms, rest), arms[0].method, key, tasks, points)] if len(points) > 1 else []
    return found


def _switched(study: Study, arms: Sequence[Arm], key: str) -> dict[Arm, Any]:
    """Return arms that carry an ablation switch only because of their value of ``key``, such as a weight of 0."""
    main = next((arm for arm in arms if arm.main), None)
    if main is None:
        return {}
    own = study.settings_of(main)
    found = {}
    for arm in study.arms_of(main.suite, main=False):
        if arm.switches and not arm.changes and arm.setup == main.setup:
            theirs = study.settings_of(arm)
            changes = {difference(theirs[task], own[task]) for task in theirs.keys() & own.keys()}
            only = changes.pop() if len(changes) == 1 else ()
            if len(only) == 1 and only[0][0] == key:
                found[arm] = only[0][1]
    return found


def _label(arms: Sequence[Arm], rest: tuple[Any, ...]) -> str:
    bare = min(arms, key=lambda arm: len(arm.changes)).label
    extra = ", ".join(f"{setting_name(key)} {setting(value)}" for key, value in rest)
    return bare if not rest or extra in bare else f"{bare}, {extra}"


def _points(study: Study, values: Mapping[Arm, Any], key: str) -> tuple[SweepPoint, ...]:
    tasks = shared_tasks(study, list(values))
    points = []
    for arm, value in values.items():
        table = study.accuracies(arm).reindex(columns=tasks)
        deviation = sample_deviation(list(table.dropna().mean(axis=1)))
        if value is not None and tasks:
            points.append(SweepPoint(value, float(table.mean().mean()), deviation, arm.main))
    return tuple(sorted(points, key=lambda point: sortable(point.value)))


def _value(study: Study, arm: Arm, key: str) -> Any:
    """Return the arm's value of a setting; None if a recipe gives it per task."""
    values = {dict(settings).get(key) for settings in study.settings_of(arm).values()}
    return values.pop() if len(values) == 1 else None
