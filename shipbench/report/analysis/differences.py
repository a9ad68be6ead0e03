"""Paired differences between two arms: the same tasks and the same seeds on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import task_name, task_order
from shipbench.report.wording.text import joined
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


@dataclass(frozen=True, eq=False)
class Comparable:
    """Mean accuracies in percent (tasks x arm keys) without gaps, and what is left out for that."""

    means: pd.DataFrame
    arms: tuple[Arm, ...]
    other_tasks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What is left out, as a sentence with a space before it; empty if that is nothing."""
        arms = f" Left out for missing tasks: {joined([arm.label for arm in self.arms])}." if self.arms else ""
        names = joined([task_name(task) for task in self.other_tasks])
        return f"{arms} Tasks left out, as not every method here has them: {names}." if names else arms


def comparable(study: Study, arms: Sequence[Arm]) -> Comparable:
    """Return the arms and tasks to compare: of all with at least so many tasks, those with the most cells.

    Three arms that share two tasks are preferred to any number that cannot be ranked.
    """
    means = study.means(arms)
    counts = means.notna().sum(axis=0)
    tables = [means.loc[:, counts >= least].dropna(axis=0) for least in sorted(set(counts[counts > 0]))]
    if not tables:
        return Comparable(means, tuple(arms), ())
    best = max(tables, key=lambda table: (table.shape[1] >= 3 and table.shape[0] >= 2, table.size))
    present = means[list(best.columns)].notna().any(axis=1)
    others = tuple(str(task) for task in means.index[present] if task not in best.index)
    return Comparable(best, tuple(arm for arm in arms if arm.key not in best.columns), others)
