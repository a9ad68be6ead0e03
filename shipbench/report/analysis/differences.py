"""Paired differences between two arms: both sides share their tasks and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import pandas as pd

from shipbench.methods import find_method
from shipbench.recipe import Recipe
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.configurations import Configuration, difference
from shipbench.report.analysis.data_versions import DataVersion
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import task_name, task_order
from shipbench.report.wording.numbers import has_value
from shipbench.report.wording.text import joined, numbered
from shipbench.settings import field_names
from shipbench.statistics import Interval, student_interval, without_noise

_ENOUGH_TASKS = 3
_RECIPE = {f"cfg.{name}" for name in field_names(Recipe)}


@dataclass(frozen=True)
class PairedDifference:
    """A mean difference in percentage points over ``tasks``, and the interval of that mean over tasks or seeds."""

    interval: Interval
    over: Literal["tasks", "seeds"]
    tasks: Mapping[str, float]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Ablation:
    """A full method and its arms with parts switched off, all in the same setup; ``number`` counts from 0 per suite."""

    full: Arm | None
    ablated: tuple[Arm, ...]
    number: int = 0

    @property
    def suffix(self) -> str:
        """What distinguishes its file names from those of other ablations of the suite: nothing, then --2, --3."""
        return numbered("", self.number + 1)


def ablations(study: Study, suite: str) -> list[Ablation]:
    """Return the ablations of a suite, one per full method that arms with parts switched off are compared with."""
    arms = study.arms_of(suite, main=False)
    groups: dict[tuple[tuple[object, ...], Arm | None], list[Arm]] = {}
    for arm in arms:
        if arm.switches and not arm.changes:
            candidates = [other for other in arms if not other.switches and other.setup == arm.setup]
            candidates.sort(key=lambda other: other.copy != arm.copy)
            groups.setdefault((arm.setup, _full_method(study, arm, candidates)), []).append(arm)
    return [Ablation(full, tuple(ablated), number) for number, ((_, full), ablated) in enumerate(groups.items())]


def _full_method(study: Study, arm: Arm, candidates: Sequence[Arm]) -> Arm | None:
    """Return the candidate with the settings of ``arm``, apart from those that its switches change; None without one.

    It was trained with the same recipe: ablations of a few epochs are not compared with a full method of many. Of its
    copies, it is the nearest one.
    """
    settings = study.settings_of(arm)
    ranked: list[tuple[int, bool, int, Arm]] = []
    for candidate in candidates:
        others = _differing(settings, study.settings_of(candidate)) - _switched(arm)
        if not others & _RECIPE:
            ranked.append((len(others), not candidate.main, len(ranked), candidate))
    if not ranked:
        return None
    changes = min(ranked)[-1].changes
    return nearest_copy(study, arm, [candidate for *_, candidate in ranked if candidate.changes == changes])


def _switched(arm: Arm) -> set[str]:
    """Return the settings that the switches of an arm change, as far as its method is installed."""
    method = find_method(arm.method)
    known = {} if method is None else method.all_switches
    return {f"cfg.{key}" for switch in arm.switches for key in known.get(switch, {})}


def _differing(ours: Mapping[str, Configuration], theirs: Mapping[str, Configuration]) -> set[str]:
    """Return the settings that differ on a task that both have."""
    return {key for task in ours.keys() & theirs.keys() for key, _ in difference(ours[task], theirs[task])}


def difference_to_full(study: Study, arm: Arm, ablation: Ablation) -> PairedDifference | None:
    """Return the paired difference of ``arm`` to the full method; None without a full arm or a shared run."""
    if ablation.full is None or arm == ablation.full:
        return None
    difference = paired_difference(*paired_accuracies(study, arm, ablation.full))
    return difference if difference.tasks else None


def notes_on_changed(study: Study, ablation: Ablation) -> list[str]:
    """Name the tasks on which ablated arms differ from the full method in images or metric."""
    full = ablation.full
    if full is None:
        return []
    changed = {arm.label: tasks for arm in ablation.ablated if (tasks := changed_tasks(study, arm, full))}
    return list(changed_notes(changed, full.label))


def changed_notes(changed: Mapping[str, Sequence[str]], other: str) -> Iterator[str]:
    """Return a sentence for each set of tasks on which rows, by label, differ from ``other`` in images or metric."""
    labels: dict[tuple[str, ...], list[str]] = {}
    for label, tasks in changed.items():
        labels.setdefault(tuple(tasks), []).append(label)
    for tasks, names in labels.items():
        what = f"{joined(names)} with {other} on {joined([task_name(task) for task in tasks])}"
        yield f"No comparison of {what}: the images, their draw, resize, augment or metric differ."


def interval_over(study: Study, ablation: Ablation) -> str:
    """Name what the intervals of an ablation are over: tasks, seeds or both."""
    differences = [difference_to_full(study, arm, ablation) for arm in ablation.ablated]
    kinds = sorted({f"over {d.over}" for d in differences if d is not None and has_value(d.interval.low)})
    return " or ".join(kinds) if kinds else "none: too few runs"


def paired_difference(ours: pd.DataFrame, reference: pd.DataFrame) -> PairedDifference:
    """Return ours minus reference (seeds x tasks, percent) with a 95 % Student t interval.

    With three or more shared tasks the interval is over tasks (each the mean over its shared seeds), otherwise over the
    seeds that have all shared tasks, and no other seed counts. Without such a seed there is no interval.
    """
    delta = _paired(ours, reference)
    complete = delta.dropna()
    if len(delta.columns) >= _ENOUGH_TASKS or complete.empty:
        tasks = _task_means(delta)
        return PairedDifference(over_tasks(list(tasks.values())), "tasks", tasks, _seeds(delta))
    interval = student_interval(list(complete.mean(axis=1)))
    return PairedDifference(interval, "seeds", _task_means(complete), _seeds(complete))


def paired_accuracies(study: Study, arm: Arm, other: Arm) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the accuracies of two arms (seeds x tasks, percent) without their ``changed_tasks``."""
    changed = changed_tasks(study, arm, other)
    return study.accuracies(arm).drop(columns=changed), study.accuracies(other).drop(columns=changed)


def changed_tasks(study: Study, arm: Arm, other: Arm) -> list[str]:
    """Return the ``differing_tasks`` with a seed of both arms."""
    differing = differing_tasks(study, arm, other)
    shared = task_differences(study.accuracies(arm), study.accuracies(other)) if differing else {}
    return [task for task in shared if task in differing]


def differing_tasks(study: Study, arm: Arm, other: Arm) -> set[str]:
    """Return the tasks of both arms whose images, draw, treatment or metric are not the same for both."""
    ours, theirs = (_measured(study, side) for side in (arm, other))
    return {task for task in ours.keys() & theirs.keys() if not _alike(ours[task], theirs[task])}


def shared_tasks(study: Study, arms: Sequence[Arm], *, any_draw: bool = False) -> list[str]:
    """Return the tasks, sorted, on which all arms with accuracies have the same images, treatment and metric.

    An arm of failed runs alone takes none away. With ``any_draw`` the draws may differ, as those of numbers of shots.
    """
    measured = [by_task for arm in arms if (by_task := _measured(study, arm))]
    tasks = set.intersection(*map(set, measured)) if measured else set()
    alike = _tested_alike if any_draw else _alike
    # A version that does not state a fact agrees with two that do not agree.
    pairs = list(combinations(measured, 2))
    return sorted(task for task in tasks if all(alike(one[task], other[task]) for one, other in pairs))


def nearest_copy(study: Study, arm: Arm, copies: Sequence[Arm]) -> Arm:
    """Return the one of ``copies`` that can be compared with ``arm`` on most tasks, and of equals the first."""
    return max(copies, key=lambda copy: len(task_differences(*paired_accuracies(study, arm, copy))))


def _measured(study: Study, arm: Arm) -> dict[str, tuple[DataVersion, str]]:
    """Return the data version and the metric of an arm by task; the counted runs of a cell have one of each."""
    runs = study.runs_of([arm])
    tasks, versions, metrics = (
        runs[name][runs["accuracy"].notna()] for name in ("task", "data_version", "headline_metric")
    )
    return dict(zip(tasks, zip(versions, metrics, strict=True), strict=True))


def _alike(ours: tuple[DataVersion, str], theirs: tuple[DataVersion, str]) -> bool:
    return ours[0].agrees_with(theirs[0]) and ours[1] == theirs[1]


def _tested_alike(ours: tuple[DataVersion, str], theirs: tuple[DataVersion, str]) -> bool:
    return ours[0].is_tested_as(theirs[0]) and ours[1] == theirs[1]


def task_differences(ours: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    """Return ours minus reference (seeds x tasks, percent) by shared task, the mean over the seeds that both have."""
    return _task_means(_paired(ours, reference))


def _paired(ours: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    return ours.subtract(reference).dropna(axis=0, how="all").dropna(axis=1, how="all")


def _task_means(delta: pd.DataFrame) -> dict[str, float]:
    return {str(task): without_noise(float(delta[task].mean())) for task in sorted(delta.columns, key=task_order)}


def _seeds(delta: pd.DataFrame) -> tuple[int, ...]:
    return tuple(int(seed) for seed in delta.index)


def over_tasks(values: Sequence[float]) -> Interval:
    """Return the mean of one value per task with its 95 % Student t interval, which is NaN below three tasks."""
    interval = student_interval(values)
    return interval if interval.n >= _ENOUGH_TASKS else replace(interval, low=float("nan"), high=float("nan"))


@dataclass(frozen=True, eq=False)
class CompleteScores:
    """Mean accuracies in percent (tasks x arm keys) without gaps, and the arms and tasks left out to have none."""

    means: pd.DataFrame
    missing_arms: tuple[Arm, ...]
    missing_tasks: tuple[str, ...]

    @property
    def left_out(self) -> str:
        """A sentence that names the omitted arms and tasks, preceded by a space; empty if none are omitted."""
        arms = joined([arm.label for arm in self.missing_arms])
        tasks = joined([task_name(task) for task in self.missing_tasks])
        first = f" Left out for missing tasks: {arms}." if arms else ""
        return f"{first} Tasks left out because some methods lack them: {tasks}." if tasks else first


def complete_scores(study: Study, arms: Sequence[Arm]) -> CompleteScores:
    """Return the complete table of arms and tasks with the most cells.

    Candidates take the arms that have at least a given number of tasks, and the tasks that all of them share. A table
    that can be ranked (three arms, two tasks) is preferred to any larger one that cannot, and one of two arms to one of
    a single arm.
    """
    means = study.means(arms)
    counts = means.notna().sum(axis=0)
    tables = [means.loc[:, counts >= least].dropna(axis=0) for least in sorted(set(counts[counts > 0]))]
    if not tables:
        return CompleteScores(means, tuple(arms), ())
    best = max(tables, key=lambda t: (t.shape[1] >= 3 and t.shape[0] >= 2, t.shape[1] >= 2 and t.size > 0, t.size))
    present = means[list(best.columns)].notna().any(axis=1)
    missing_tasks = tuple(str(task) for task in means.index[present] if task not in best.index)
    return CompleteScores(best, tuple(arm for arm in arms if arm.key not in best.columns), missing_tasks)
