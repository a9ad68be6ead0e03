"""A study: the runs that a selection rule can speak about, sorted into arms, with their scores in percent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from shipbench.report.analysis.arms import Arm, Configuration, assign_arms, configurations
from shipbench.report.analysis.normalise import uniform_history, uniform_records
from shipbench.report.analysis.tuned import with_tuned_rows, with_tunings, without_repeats
from shipbench.report.wording.names import group_order, suite_order, task_order
from shipbench.selection import Selection
from shipbench.statistics import mean_of_groups, mean_of_tasks, sample_deviation
from shipbench.tasks import SUITES


@dataclass(frozen=True)
class Score:
    """A mean in percent, its sample deviation over seeds (NaN for one seed), and those seeds."""

    mean: float
    deviation: float
    seeds: tuple[int, ...]


NO_SCORE = Score(float("nan"), float("nan"), ())


@dataclass(frozen=True)
class Summary:
    """One arm's scores: per task, per group, and the two averages; a missing task leaves its means NaN."""

    tasks: Mapping[str, Score]
    groups: Mapping[str, Score]
    mean_of_groups: Score
    mean_of_tasks: Score


@dataclass(frozen=True, eq=False)
class Study:
    """``records``: every record once; ``runs``: the rows that count here, with ``arm`` and ``accuracy`` (fraction).

    A record has two rows in ``runs`` (which name it by its index, ``record``) where it stands both for the recipe and
    for a tuning that chose the recipe's settings. ``tuning`` says of a record what a tuning has to do with it.
    ``collapsed`` marks finished runs that are no better than always answering the commonest class, where its share
    of the test images (``chance_acc``) is known. They count like any other run.
    """

    records: pd.DataFrame
    runs: pd.DataFrame
    history: pd.DataFrame
    arms: tuple[Arm, ...]
    selection: Selection

    @cached_property
    def labels(self) -> pd.Series[str]:
        """The labels of the arms that each record belongs to, by its index; empty where it belongs to none."""
        return self.by_record({arm.key: arm.label for arm in self.arms})

    def by_record(self, texts: Mapping[int, str]) -> pd.Series[str]:
        """Return for every record the texts of its arms (by key), joined."""
        found = self.runs["arm"].map(texts).groupby(self.runs["record"]).agg(lambda own: "; ".join(filter(None, own)))
        return found.astype(object).reindex(self.records.index, fill_value="")

    @cached_property
    def suites(self) -> tuple[str, ...]:
        """The suites that occur, in the catalogue's order."""
        return tuple(sorted(set(self.runs["suite"]), key=suite_order))

    def arms_of(self, suite: str, *, main: bool) -> list[Arm]:
        """Return the suite's arms: those of the main table, or all of them."""
        return [arm for arm in self.arms if arm.suite == suite and (arm.main or not main)]

    def runs_of(self, arms: Sequence[Arm]) -> pd.DataFrame:
        """Return the runs of these arms, failed ones included."""
        return self.runs[self.runs["arm"].isin([arm.key for arm in arms])]

    def settings_of(self, arm: Arm) -> dict[str, Configuration]:
        """Return the arm's settings by task."""
        runs = self.runs_of([arm])
        return dict(zip(runs["task"], configurations(runs), strict=True))

    def collapsed(self, arm: Arm) -> dict[str, tuple[int, ...]]:
        """Return the arm's collapsed seeds by task."""
        runs = self.runs_of([arm])
        lost = runs[runs["collapsed"]].groupby("task")["seed"]
        return {str(task): tuple(sorted(int(seed) for seed in seeds)) for task, seeds in lost}

    def groups_of(self, suite: str) -> dict[str, tuple[str, ...]]:
        """Return the suite's groups and their tasks: all of the catalogue's, run or not."""
        known = {item.name: item.tasks for item in SUITES}
        if suite in known:
            pairs = [(task.group, task.name) for task in known[suite]]
        else:
            own = self.runs[self.runs["suite"] == suite]
            pairs = sorted(set(zip(own["group"], own["task"], strict=True)))
        groups = sorted({group for group, _ in pairs}, key=group_order)
        return {group: tuple(task for other, task in pairs if other == group) for group in groups}

    def tasks_of(self, suite: str) -> list[str]:
        """Return the suite's tasks, group by group."""
        return [task for tasks in self.groups_of(suite).values() for task in tasks]

    @cached_property
    def _tables(self) -> dict[int, pd.DataFrame]:
        done = self.runs[self.runs["accuracy"].notna()]
        return {
            int(key): 100 * runs.pivot(index="seed", columns="task", values="accuracy")
            for key, runs in done.groupby("arm")
        }

    def accuracies(self, arm: Arm) -> pd.DataFrame:
        """Return the arm's accuracies in percent: seeds as rows, tasks as columns, NaN where there is no run."""
        return self._tables.get(arm.key, pd.DataFrame(dtype=float))

    def summary(self, arm: Arm) -> Summary:
        """Return the arm's scores per task and group, and both averages."""
        return summarise(self.accuracies(arm), self.groups_of(arm.suite))

    def means(self, arms: Sequence[Arm]) -> pd.DataFrame:
        """Return mean accuracies in percent: tasks as rows, arm keys as columns."""
        columns = {arm.key: self.accuracies(arm).mean(axis=0) for arm in arms}
        table = pd.DataFrame(columns)
        return table.reindex(sorted(table.index, key=task_order))


def build_study(
    results: pd.DataFrame,
    history: pd.DataFrame | None,
    selection: Selection,
    tunings: Iterable[Mapping[str, Any]] = (),
) -> Study:
    """Sort records into arms under one selection rule; ``tunings`` give runs with tuned settings rows of their own."""
    records, curves = with_tunings(uniform_records(results), tunings), uniform_history(history)
    rows = with_tuned_rows(records)
    accuracy = selection.accuracy(rows, curves).where(rows["status"] == "done")
    rows = rows.assign(accuracy=accuracy.astype(float), collapsed=accuracy <= rows["chance_acc"])
    counted = rows["accuracy"].notna()
    protocols = set(rows.loc[counted, "protocol"]) or {"final"}
    failed = (rows["status"] != "done") & rows["protocol"].isin(protocols)
    runs = without_repeats(rows[counted | failed])
    keys, arms = assign_arms(runs)
    taken = rows[counted].drop_duplicates("record").set_index("record")["accuracy"]
    return Study(records.assign(accuracy=taken.reindex(records.index)), runs.assign(arm=keys), curves, arms, selection)


def summarise(accuracies: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> Summary:
    """Summarise seeds x tasks: means of cell means, and sample deviations over the seeds' own averages."""
    tasks = [task for names in groups.values() for task in names]
    table = accuracies.reindex(columns=tasks)
    scores = {task: _score(table[task].dropna()) for task in tasks}
    means = {task: score.mean for task, score in scores.items()}
    per_group = {
        group: Score(mean_of_tasks(means, names), *_over_seeds(table, {group: names}))
        for group, names in groups.items()
    }
    return Summary(
        scores,
        per_group,
        Score(mean_of_groups(means, groups), *_over_seeds(table, groups)),
        Score(mean_of_tasks(means, tasks), *_over_seeds(table, {"all": tasks})),
    )


def _score(values: pd.Series[float]) -> Score:
    if not len(values):
        return NO_SCORE
    return Score(float(values.mean()), sample_deviation(list(values)), tuple(int(seed) for seed in values.index))


def _over_seeds(table: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> tuple[float, tuple[int, ...]]:
    """Return the deviation of the seeds' own mean of groups, and the seeds that have every task."""
    complete = table.dropna(subset=[task for names in groups.values() for task in names])
    averages = [mean_of_groups({str(k): float(v) for k, v in row.items()}, groups) for _, row in complete.iterrows()]
    return sample_deviation(averages), tuple(int(seed) for seed in complete.index)
