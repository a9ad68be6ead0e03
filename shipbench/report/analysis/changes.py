"""Two sets of runs compared pair by pair: what moved, by how much, and whether beyond chance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from shipbench.record import MEAN_PER_CLASS
from shipbench.report.analysis.cautions import without_seal
from shipbench.report.analysis.comparisons import ALPHA, across_tasks_tests
from shipbench.report.analysis.differences import over_tasks
from shipbench.report.analysis.normalise import with_facts_of_failed
from shipbench.report.analysis.pairing import Row, is_done, pair_labels, pair_runs, run_name
from shipbench.report.analysis.predictions import LoadPredictions, TimesCorrect, times_correct
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import method_order, task_order
from shipbench.statistics import Interval, holm, rank_biserial, student_test, without_noise

Verdict: TypeAlias = Literal["better", "worse", "not beyond chance", "unchanged", "no test"]
TestKind: TypeAlias = Literal["images", "seeds", ""]


@dataclass(frozen=True)
class RunPair:
    """A run of each side with the same task and seed; accuracies in percent."""

    label: str
    task: str
    group: str
    seed: int
    run_a: str
    run_b: str
    a: float
    b: float


@dataclass(frozen=True)
class TaskChange:
    """The mean accuracies of both sides on a task in percent, over shared seeds, and the test of their difference.

    ``test`` says what the p-value is over: test images or seeds. ``adjusted`` is Holm's p-value over all tasks of all
    methods. ``by_class`` tells that the accuracies of both sides are means over classes.
    """

    label: str
    task: str
    group: str
    seeds: tuple[int, ...]
    a: float
    b: float
    test: TestKind
    p_value: float
    adjusted: float = float("nan")
    by_class: bool = False

    @property
    def difference(self) -> float:
        """B minus A in percentage points."""
        return without_noise(self.b - self.a)

    @property
    def verdict(self) -> Verdict:
        """Whether the accuracy moved, and whether beyond chance at the 5 % level."""
        return _verdict(self.difference, self.adjusted)


@dataclass(frozen=True)
class MethodChange:
    """The mean difference of a method over its shared tasks with its 95 % Student t interval, and Wilcoxon's test.

    ``rank_biserial`` is the direction of that test, which may be another than that of the mean.
    """

    label: str
    interval: Interval
    p_value: float
    rank_biserial: float
    adjusted: float = float("nan")

    @property
    def verdict(self) -> Verdict:
        """Whether the tasks moved beyond chance at the 5 % level by Wilcoxon's test, or else whether the mean moved."""
        moved = self.rank_biserial if self.adjusted < ALPHA else without_noise(self.interval.mean)
        return _verdict(moved, self.adjusted)

    @property
    def against_mean(self) -> bool:
        """Whether the verdict is beyond chance, and not in the direction of the mean."""
        return self.adjusted < ALPHA and self.rank_biserial * self.interval.mean <= 0


@dataclass(frozen=True)
class Unpaired:
    """A run that only one side has, or that finished on one side and failed on the other."""

    run_id: str
    label: str
    task: str
    seed: int


@dataclass(frozen=True)
class Changes:
    """Everything that differs between side A and side B.

    ``unscored`` counts the pairs of finished runs of which one lacks the accuracy that counts under the rule.
    ``warnings`` name compared runs of either side whose records have no seal.
    """

    select: str
    pairs: tuple[RunPair, ...]
    tasks: tuple[TaskChange, ...]
    methods: tuple[MethodChange, ...]
    only_a: tuple[Unpaired, ...]
    only_b: tuple[Unpaired, ...]
    failed_in_b: tuple[Unpaired, ...]
    unscored: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def compared(self) -> bool:
        """Whether a pair tells B from A: by two accuracies, or because it failed in B alone."""
        return bool(self.pairs or self.failed_in_b)

    @property
    def regressions(self) -> list[str]:
        """What became worse beyond chance, and runs that failed only in B, one sentence each."""
        tasks = [f"{c.label} on {c.task}" for c in self.tasks if c.verdict == "worse"]
        methods = [
            f"{c.label} across tasks{' by their ranks, against the mean' if c.against_mean else ''}"
            for c in self.methods
            if c.verdict == "worse"
        ]
        failed = [f"{run.label} on {run.task}, seed {run.seed}, failed in B" for run in self.failed_in_b]
        return [*methods, *tasks, *failed]


@dataclass(frozen=True, eq=False)
class Side:
    """The runs of one side under a selection rule, and how to read their predictions.

    ``study`` holds every record of the results folder, because an evaluation names its run and a tuning the runs that
    it chose; ``run_ids`` are the runs to compare.
    """

    study: Study
    load: LoadPredictions
    run_ids: frozenset[str]

    @cached_property
    def metrics(self) -> Mapping[str, str]:
        """The headline metric of every run by its id."""
        frames = (self.study.records, self.study.evaluated)
        return {run: metric for f in frames for run, metric in zip(f["run_id"], f["headline_metric"], strict=True)}


def compare(a: Side, b: Side, named: Collection[str]) -> Changes:
    """Pair the runs of two sides; ``named`` are the columns that a selection restricts.

    Raises ``InputError`` if several runs of a side would be paired with the same run of the other.
    """
    a, b = _completed(a, b), _completed(b, a)
    pairing = pair_runs(_rows(a), _rows(b), named)
    finished = [pair for pair in pairing.pairs if all(map(is_done, pair))]
    scored = [pair for pair in finished if not any(np.isnan(row["accuracy"]) for row in pair)]
    pairs = [_pair(one, other, label) for (one, other), label in zip(scored, pair_labels(scored), strict=True)]
    pairs.sort(key=_order)
    tasks = _task_changes(pairs, a, b)
    return Changes(
        a.study.selection.name,
        tuple(pairs),
        tuple(tasks),
        tuple(_method_changes(tasks)),
        tuple(map(_unpaired, pairing.only_a)),
        tuple(map(_unpaired, pairing.only_b)),
        tuple(_unpaired(other) for one, other in pairing.pairs if is_done(one) and not is_done(other)),
        len(finished) - len(scored),
        (*_warnings("A", [one for one, _ in scored]), *_warnings("B", [other for _, other in scored])),
    )


def _warnings(side: str, rows: Sequence[Row]) -> list[str]:
    runs = pd.DataFrame(rows, columns=["run_id", "status", "method", "origin"])
    return [f"{side}: {sentence}" for sentence in without_seal(runs)]


def _verdict(difference: float, adjusted: float) -> Verdict:
    if difference == 0:
        return "unchanged"
    if np.isnan(adjusted):
        return "no test"
    if adjusted >= ALPHA:
        return "not beyond chance"
    return "better" if difference > 0 else "worse"


def _completed(side: Side, other: Side) -> Side:
    """Return a side whose early failures have the facts of runs like them, which may lie on the other side alone."""
    records = with_facts_of_failed(side.study.records, other.study.records)
    return replace(side, study=replace(side.study, records=records))


def _rows(side: Side) -> list[Row]:
    """Return the records to compare, trained ones first; those of evaluations say what their runs were trained on."""
    study, evaluated = side.study, side.study.evaluated
    accuracy = study.selection.accuracy(evaluated, study.history).where(evaluated["status"] == "done")
    facts = study.records[["run_id", "task", "data_fingerprint", "suite"]].itertuples(index=False, name=None)
    parents = {run_id: known for run_id, *known in facts}
    rows: list[Row] = []
    for frame in (study.records, evaluated.assign(accuracy=accuracy.astype(float))):
        for row in frame[frame["run_id"].isin(list(side.run_ids))].to_dict(orient="records"):
            task, data, suite = parents.get(row["parent_run"], ("", "", row["suite"]))
            parent = {"parent_task": task, "parent_data": data, "suite": suite}
            rows.append({str(name): value for name, value in row.items()} | parent)
    return rows


def _pair(one: Row, other: Row, label: str) -> RunPair:
    accuracies = (100 * float(row["accuracy"]) for row in (one, other))
    return RunPair(label, one["task"], one["group"], int(one["seed"]), one["run_id"], other["run_id"], *accuracies)


def _unpaired(row: Row) -> Unpaired:
    return Unpaired(row["run_id"], run_name(row), row["task"], int(row["seed"]))


def _order(pair: RunPair) -> tuple[Any, ...]:
    return method_order(pair.label), pair.label, task_order(pair.task), pair.seed


def _task_changes(pairs: Sequence[RunPair], a: Side, b: Side) -> list[TaskChange]:
    cells: dict[tuple[str, str], list[RunPair]] = {}
    for pair in pairs:
        cells.setdefault((pair.label, pair.task), []).append(pair)
    changes = [_task_change(cell, a, b) for cell in cells.values()]
    adjusted = holm([change.p_value for change in changes])
    return [replace(change, adjusted=p) for change, p in zip(changes, adjusted, strict=True)]


def _task_change(pairs: Sequence[RunPair], a: Side, b: Side) -> TaskChange:
    first = pairs[0]
    p_value, test = _image_test(pairs, a, b), "images"
    if p_value is None:
        p_value, test = student_test([pair.b - pair.a for pair in pairs]), "seeds"
    means = (float(np.mean([pair.a for pair in pairs])), float(np.mean([pair.b for pair in pairs])))
    seeds = tuple(pair.seed for pair in pairs)
    kind: TestKind = "" if np.isnan(p_value) else "images" if test == "images" else "seeds"
    by_class = all(MEAN_PER_CLASS == a.metrics[pair.run_a] == b.metrics[pair.run_b] for pair in pairs)
    return TaskChange(first.label, first.task, first.group, seeds, *means, kind, p_value, by_class=by_class)


def _image_test(pairs: Sequence[RunPair], a: Side, b: Side) -> float | None:
    """Return the p-value over test images; None unless both sides have predictions on the same ones and one metric.

    Predictions are those after the last epoch, so that they fit no other rule.
    """
    if a.study.selection.name != "final":
        return None
    ours, theirs = _correct(a, [pair.run_a for pair in pairs]), _correct(b, [pair.run_b for pair in pairs])
    test = None if ours is None or theirs is None else theirs.test(ours)
    return None if test is None else test.p_value


def _correct(side: Side, run_ids: Sequence[str]) -> TimesCorrect | None:
    """Return how many of the runs of a side classify each image correctly."""
    metrics = {side.metrics[run_id] for run_id in run_ids}
    return times_correct(side.load(run_ids), run_ids, metrics.pop()) if len(metrics) == 1 else None


def _method_changes(tasks: Sequence[TaskChange]) -> list[MethodChange]:
    values: dict[str, list[float]] = {}
    for change in tasks:
        values.setdefault(change.label, []).append(change.difference)
    tests = across_tasks_tests(list(values.values()))
    return [
        MethodChange(label, over_tasks(v), p_value, rank_biserial(v), adjusted)
        for (label, v), (p_value, adjusted) in zip(values.items(), tests, strict=True)
    ]
