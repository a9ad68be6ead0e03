"""A study: the runs that count under a selection rule, sorted into arms, with their scores in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import compress
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shipbench.record import EVALUATED, IMPORTED, MEAN_PER_CLASS, is_collapsed, is_outdated
from shipbench.report.analysis.arms import Arm, assign_arms
from shipbench.report.analysis.configurations import Configuration, configurations
from shipbench.report.analysis.normalise import json_list, uniform_history, uniform_records, with_facts_of_failed
from shipbench.report.analysis.tuned import CONFIRMED, chosen_at_ends, with_tuned_rows, with_tunings, without_repeats
from shipbench.report.wording.names import group_order, suite_order, task_order
from shipbench.selection import Selection
from shipbench.statistics import mean_of_groups, mean_of_tasks, sample_deviation
from shipbench.tasks import SUITES

ImportedChoice: TypeAlias = Literal["none", "beside", "all"]

_MIXTURES = ("headline_metric", "data_version")
"""The columns in which the seeds of a cell must agree to have a mean."""


@dataclass(frozen=True)
class Score:
    """A mean in percent, its standard deviation over seeds (NaN for a single seed), and the seeds."""

    mean: float
    deviation: float
    seeds: tuple[int, ...]


NO_SCORE = Score(float("nan"), float("nan"), ())


@dataclass(frozen=True)
class Summary:
    """The scores of an arm per task and group, and both averages; a mean with a missing task is NaN."""

    tasks: Mapping[str, Score]
    groups: Mapping[str, Score]
    mean_of_groups: Score
    mean_of_tasks: Score

    @property
    def scores(self) -> tuple[Score, ...]:
        """The scores in column order: tasks, groups, mean of groups, mean of tasks."""
        return (*self.tasks.values(), *self.groups.values(), self.mean_of_groups, self.mean_of_tasks)

    def all_means(self) -> list[float]:
        """Return the means of ``scores``."""
        return [score.mean for score in self.scores]


@dataclass(frozen=True, eq=False)
class Study:
    """Records under one selection rule, as tables and figures read them.

    ``records`` holds every record once. ``runs`` holds the rows that count and the failed ones, with ``arm`` (key),
    ``accuracy`` (fraction, NaN if failed, or if runs of the same cell are scored by another metric) and ``record``
    (index into ``records``). A record has two rows if it stands both for its recipe and for a tuning that confirmed the
    recipe. ``collapsed`` marks runs whose accuracy does not exceed the majority-class accuracy (``chance_acc``), where
    that is known; they count like any other run. ``evaluated`` holds the records of finished runs that were scored on
    other images, with the same columns as ``records`` and without those of weights that a run had before its
    repetition. ``imported`` says how results of other harnesses are shown. ``ends`` holds, by run id, which settings
    that a tuning chose are at an end of its grid.
    """

    records: pd.DataFrame
    runs: pd.DataFrame
    history: pd.DataFrame
    arms: tuple[Arm, ...]
    selection: Selection
    evaluated: pd.DataFrame
    imported: ImportedChoice = "all"
    ends: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @cached_property
    def labels(self) -> pd.Series[str]:
        """The arm labels of every record, by its index; empty if it belongs to no arm."""
        return self.by_record({arm.key: arm.label for arm in self.arms})

    def by_record(self, texts: Mapping[int, str]) -> pd.Series[str]:
        """Return, for every record, the joined ``texts`` of its arms; ``texts`` is by arm key."""
        by_row = self.runs["arm"].map(texts)
        joined = by_row.groupby(self.runs["record"]).agg(lambda of_record: "; ".join(filter(None, of_record)))
        return joined.astype(object).reindex(self.records.index, fill_value="")

    @cached_property
    def suites(self) -> tuple[str, ...]:
        """The suites that have runs, in the order of the catalogue."""
        return tuple(sorted(set(self.runs["suite"]), key=suite_order))

    def arms_of(self, suite: str, *, main: bool) -> list[Arm]:
        """Return the arms of a suite, without imported ones that stand beside: those of the main table, or all."""
        beside = set(self.imported_beside(suite))
        return [arm for arm in self.arms if arm.suite == suite and (arm.main or not main) and arm not in beside]

    def imported_beside(self, suite: str) -> list[Arm]:
        """Return the imported arms that stand beside the others; none if the suite has no others."""
        arms = [arm for arm in self.arms if arm.suite == suite]
        if self.imported != "beside" or all(arm.imported for arm in arms):
            return []
        return [arm for arm in arms if arm.imported]

    def runs_of(self, arms: Sequence[Arm]) -> pd.DataFrame:
        """Return the runs of ``arms``, failed ones included."""
        keys = tuple(sorted({arm.key for arm in arms}))
        if keys not in self._runs_by_arms:
            self._runs_by_arms[keys] = self.runs[self.runs["arm"].isin(keys)]
        return self._runs_by_arms[keys]

    @cached_property
    def _runs_by_arms(self) -> dict[tuple[int, ...], pd.DataFrame]:
        """What ``runs_of`` has returned: selecting rows of a hundred columns takes milliseconds."""
        return {}

    def seeds_of(self, arm: Arm) -> tuple[int, ...]:
        """Return the seeds the arm was run with, failed runs included."""
        return self._seeds.get(arm.key, ())

    @cached_property
    def _seeds(self) -> dict[int, tuple[int, ...]]:
        by_arm = self.runs["seed"].groupby(self.runs["arm"].astype(int))
        return {key: tuple(sorted({int(seed) for seed in seeds})) for key, seeds in by_arm}

    def settings_of(self, arm: Arm) -> dict[str, Configuration]:
        """Return the settings of an arm by task."""
        runs = self.runs_of([arm])
        return dict(zip(runs["task"], configurations(runs), strict=True))

    def choices_of(self, arm: Arm) -> tuple[str, ...]:
        """Return of which settings an arm is a result: default, tuned, or both if a tuning confirmed its recipe."""
        if arm.tuned:
            return ("tuned",)
        runs = self.runs_of([arm])
        confirmed = runs["tuning"][runs["accuracy"].notna()] == CONFIRMED
        return ("default", "tuned") if len(confirmed) and confirmed.all() else ("default",)

    @cached_property
    def mixed_records(self) -> Mapping[int, str]:
        """The finished runs that count in no cell, and what sets other seeds of theirs apart (see ``_MIXTURES``)."""
        mixed = self.runs[self.runs["mixed"] != ""]
        counted = set(self.runs.loc[self.runs["accuracy"].notna(), "record"])
        return {
            record: what for record, what in zip(mixed["record"], mixed["mixed"], strict=True) if record not in counted
        }

    @cached_property
    def counted_records(self) -> pd.DataFrame:
        """The records of the finished runs that count in a cell."""
        mixed = self.records.index.isin(list(self.mixed_records))
        return self.records[self.records["accuracy"].notna() & ~mixed]

    def collapsed(self, arm: Arm) -> dict[str, tuple[int, ...]]:
        """Return the collapsed seeds of an arm by task."""
        runs = self.runs_of([arm])
        collapsed = runs["collapsed"]
        by_task = runs["seed"][collapsed].groupby(runs["task"][collapsed])
        return {str(task): tuple(sorted(int(seed) for seed in seeds)) for task, seeds in by_task}

    def groups_of(self, suite: str) -> dict[str, tuple[str, ...]]:
        """Return the groups of a suite with their tasks: all tasks of the catalogue, even those without runs."""
        catalogue = {item.name: item.tasks for item in SUITES}
        if suite in catalogue:
            pairs = [(task.group, task.name) for task in catalogue[suite]]
        else:
            pairs = self._own_tasks(self.runs[self.runs["suite"] == suite])
        groups = sorted({group for group, _ in pairs}, key=group_order)
        return {group: tuple(task for other, task in pairs if other == group) for group in groups}

    def _own_tasks(self, runs: pd.DataFrame) -> list[tuple[str, str]]:
        """Return the (group, task) pairs of a suite outside the catalogue, also those of tasks without runs."""
        groups = dict(zip(runs["task"], runs["group"], strict=True))
        declared = [str(task) for text in sorted(set(runs["suite_tasks"])) for task in json_list(text)]
        tasks = dict.fromkeys([*declared, *sorted(groups)])
        return [(groups.get(task, "Not run"), task) for task in tasks]

    def tasks_of(self, suite: str) -> list[str]:
        """Return the tasks of a suite, group by group."""
        return [task for tasks in self.groups_of(suite).values() for task in tasks]

    @cached_property
    def _tables(self) -> dict[int, pd.DataFrame]:
        done = self.runs[self.runs["accuracy"].notna()]
        return {
            key: 100 * runs.pivot(index="seed", columns="task", values="accuracy")
            for key, runs in done.groupby(done["arm"].astype(int))
        }

    def accuracies(self, arm: Arm) -> pd.DataFrame:
        """Return the accuracies of an arm in percent (seeds x tasks), NaN where there is no run."""
        return self._tables.get(arm.key, pd.DataFrame(dtype=float))

    def summary(self, arm: Arm) -> Summary:
        """Return the scores of an arm per task and group, and both averages."""
        if arm.key not in self._summaries:
            self._summaries[arm.key] = summarise(self.accuracies(arm), self.groups_of(arm.suite))
        return self._summaries[arm.key]

    def part_of(self, arm: Arm) -> tuple[str, ...]:
        """Return the tasks of an arm that lacks others of its suite, in table order; empty if it lacks none."""
        scores = self.summary(arm).tasks
        tasks = tuple(task for task, score in scores.items() if score.seeds)
        return tasks if len(tasks) < len(scores) else ()

    def score_over(self, arm: Arm, tasks: Sequence[str]) -> Score:
        """Return the mean of an arm over ``tasks``."""
        return summarise(self.accuracies(arm), {"all": tasks}).mean_of_tasks

    @cached_property
    def _summaries(self) -> dict[int, Summary]:
        return {}

    def means(self, arms: Sequence[Arm]) -> pd.DataFrame:
        """Return mean accuracies over seeds in percent (tasks x arm keys)."""
        columns = {arm.key: self.accuracies(arm).mean(axis=0) for arm in arms}
        table = pd.DataFrame(columns)
        return table.reindex(sorted(table.index, key=task_order))


def build_study(
    results: pd.DataFrame,
    history: pd.DataFrame | None,
    selection: Selection,
    tunings: Sequence[Mapping[str, Any]] = (),
    imported: ImportedChoice = "all",
) -> Study:
    """Sort records into arms under a selection rule; runs named by ``tunings`` get separate rows.

    Evaluations of finished runs belong to no arm. ``imported`` says whether results of other harnesses are left out,
    stand beside the other arms or are arms like any other.
    """
    uniform = uniform_records(results)
    if imported == "none":
        uniform = uniform[uniform["kind"] != IMPORTED].reset_index(drop=True)
    is_evaluated = uniform["kind"] == EVALUATED
    trained = uniform[~is_evaluated].reset_index(drop=True)
    evaluated = _with_headline(_of_present_weights(uniform[is_evaluated], trained).reset_index(drop=True))
    records = with_tunings(with_facts_of_failed(trained), tunings)
    study = _study(records, evaluated, uniform_history(history), selection)
    return replace(study, imported=imported, ends=chosen_at_ends(tunings))


def with_selection(study: Study, selection: Selection) -> Study:
    """Return the records of ``study`` under another selection rule."""
    other = _study(study.records.drop(columns="accuracy"), study.evaluated, study.history, selection)
    return replace(other, imported=study.imported, ends=study.ends)


def _study(records: pd.DataFrame, evaluated: pd.DataFrame, curves: pd.DataFrame, selection: Selection) -> Study:
    rows = _with_headline(with_tuned_rows(records))
    stated = rows["stated_acc"].where(rows["epoch_rule"] == selection.name)
    accuracy = selection.accuracy(rows, _over_images(curves, rows)).fillna(stated).where(rows["status"] == "done")
    rows = rows.assign(accuracy=accuracy.astype(float), collapsed=is_collapsed(accuracy, rows["chance_acc"]))
    counted = rows["accuracy"].notna()
    protocols = set(rows.loc[counted, "protocol"]) or {"final"}
    failed = (rows["status"] != "done") & rows["protocol"].isin(protocols)
    runs = without_repeats(rows[counted | failed])
    keys, arms = assign_arms(runs)
    runs = _of_one_kind(runs.assign(arm=keys))
    accuracies = rows[counted].drop_duplicates("record").set_index("record")["accuracy"]
    records = records.assign(accuracy=accuracies.reindex(records.index))
    # A copy stores columns of one type together; selecting rows from a hundred separate columns is ten times slower.
    return Study(records.copy(), runs.copy(), curves, arms, selection, evaluated)


def _of_one_kind(runs: pd.DataFrame) -> pd.DataFrame:
    """Return ``runs`` without the accuracies of cells whose seeds differ in one of ``_MIXTURES``: no mean covers both.

    ``mixed`` names it for the finished runs of such cells, and is empty for others.
    """
    counted, cells = runs["accuracy"].notna(), [runs["arm"], runs["task"]]
    what = pd.Series("", index=runs.index, dtype=object)
    for column in _MIXTURES:
        values = runs[column].where(counted).groupby(cells).transform("nunique")
        what = what.mask(counted & (what == "") & (values > 1), column)
    mixed = what != ""
    return runs.assign(accuracy=runs["accuracy"].mask(mixed), collapsed=runs["collapsed"] & ~mixed, mixed=what)


def _of_present_weights(evaluated: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Return the evaluations of the weights that the runs in ``records`` have now; those of unknown runs stay."""
    created = dict(zip(records["run_id"], records["created"], strict=True))
    of_run = evaluated["parent_run"].map(created).fillna("").astype(object)
    return evaluated[~is_outdated(evaluated["created"], of_run)]


def _with_headline(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose test accuracy is that of their headline metric; the best epoch by another is unknown."""
    per_class = rows["headline_metric"] == MEAN_PER_CLASS
    return rows.assign(
        final_test_acc=rows["final_test_acc"].mask(per_class, rows["final_test_mean_class_acc"]),
        best_test_acc=rows["best_test_acc"].mask(per_class),
        chance_acc=rows["chance_acc"].mask(per_class, 1 / rows["num_classes"]),
    )


def _over_images(curves: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the history of the runs whose metric is the accuracy over images, as all accuracies of a history are."""
    return curves[~curves["run_id"].isin(rows.loc[rows["headline_metric"] == MEAN_PER_CLASS, "run_id"])]


def summarise(accuracies: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> Summary:
    """Return means over tasks and groups of ``accuracies`` (seeds x tasks), with standard deviations over seeds.

    The deviation of an average is that of the averages of single seeds.
    """
    tasks = [task for names in groups.values() for task in names]
    table = accuracies.reindex(columns=tasks)
    by_task = dict(zip(tasks, table.to_numpy(dtype=float).T, strict=True))
    seeds = [int(seed) for seed in table.index]
    scores = {task: _score(values, seeds) for task, values in by_task.items()}
    means = {task: score.mean for task, score in scores.items()}
    of_groups = partial(mean_of_groups, groups={task: group for group, names in groups.items() for task in names})
    return Summary(
        tasks=scores,
        groups={
            group: Score(mean_of_tasks(means, names), *_over_seeds(by_task, seeds, {group: names}))
            for group, names in groups.items()
        },
        mean_of_groups=Score(of_groups(means), *_over_seeds(by_task, seeds, groups)),
        mean_of_tasks=Score(mean_of_tasks(means, tasks), *_over_seeds(by_task, seeds, {"all": tasks})),
    )


def mean_over_tasks(runs: pd.DataFrame, column: str) -> float:
    """Return the mean over tasks of the mean over finished runs of a column."""
    # Selecting rows of a hundred columns takes milliseconds.
    done = runs["status"] == "done"
    return float(runs[column][done].groupby(runs["task"][done]).mean().mean())


def _score(values: NDArray[np.float64], seeds: Sequence[int]) -> Score:
    ran = ~np.isnan(values)
    if not ran.any():
        return NO_SCORE
    return Score(float(values[ran].mean()), sample_deviation(list(values[ran])), tuple(compress(seeds, ran)))


def _over_seeds(
    by_task: Mapping[str, NDArray[np.float64]], seeds: Sequence[int], groups: Mapping[str, Sequence[str]]
) -> tuple[float, tuple[int, ...]]:
    """Return the deviation of the mean of ``groups`` over the seeds that have all their tasks, and these seeds."""
    of_groups = [np.mean([by_task[task] for task in names], axis=0) for names in groups.values() if names]
    averages = np.mean(of_groups, axis=0) if of_groups else np.full(len(seeds), np.nan)
    complete = ~np.isnan(averages)
    return sample_deviation(list(averages[complete])), tuple(compress(seeds, complete))
