"""Paired differences between two arms: the same tasks and the same seeds on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from shipbench.report.arms import Arm
from shipbench.report.labels import task_order
from shipbench.report.study import Study
from shipbench.statistics import Interval, student_interval

_ENOUGH_TASKS = 3


@dataclass(frozen=True)
class PairedDifference:
    """A mean difference in percentage points over ``tasks``, its interval and what that varies over."""

    interval: Interval
    over: Literal["tasks", "seeds"]
    tasks: Mapping[str, float]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Ablation:
    """A full method and its arms with parts switched off, all in the same setup."""

    full: Arm | None
    ablated: tuple[Arm, ...]


def ablations(study: Study, suite: str) -> list[Ablation]:
    """Return the suite's ablations, one per setup that has switched arms."""
    arms = study.arms_of(suite, main=False)
    switched = [arm for arm in arms if arm.switches and not arm.changes]
    full = {arm.setup: arm for arm in arms if arm.main}
    setups = list(dict.fromkeys(arm.setup for arm in switched))
    return [Ablation(full.get(setup), tuple(arm for arm in switched if arm.setup == setup)) for setup in setups]


def paired_difference(ours: pd.DataFrame, reference: pd.DataFrame) -> PairedDifference:
    """Return ours minus reference (seeds x tasks, percent) with a 95 % Student t interval.

    The interval is over tasks (their means over the shared seeds) where three or more are shared,
    and else over seeds.
    """
    delta = ours.subtract(reference).dropna(axis=0, how="all").dropna(axis=1, how="all")
    tasks = {str(task): float(delta[task].mean()) for task in sorted(delta.columns, key=task_order)}
    seeds = tuple(int(seed) for seed in delta.index)
    if len(tasks) >= _ENOUGH_TASKS:
        return PairedDifference(student_interval(list(tasks.values())), "tasks", tasks, seeds)
    complete = delta.dropna()
    return PairedDifference(student_interval(list(complete.mean(axis=1))), "seeds", tasks, seeds)


def over_tasks(values: Sequence[float]) -> Interval:
    """Return the mean of a value per task with its 95 % Student t interval; below three tasks, the mean alone."""
    found = student_interval(values)
    return found if found.n >= _ENOUGH_TASKS else replace(found, low=float("nan"), high=float("nan"))


def comparable(study: Study, arms: list[Arm]) -> tuple[pd.DataFrame, list[Arm]]:
    """Return mean accuracies (tasks x arm keys) without gaps, and the arms left out for having fewer tasks."""
    means = study.means(arms)
    counts = means.notna().sum(axis=0)
    kept = [arm for arm in arms if len(counts) and counts[arm.key] == counts.max() > 0]
    table = means[[arm.key for arm in kept]].dropna(axis=0)
    return table, [arm for arm in arms if arm not in kept]
