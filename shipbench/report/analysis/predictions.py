"""Stored per-image predictions, read once per task.

Predictions are from the last epoch, so they match a run only if the selection rule takes the final accuracy. An arm is
left out of a task unless all its counted runs there have matching predictions, because a few seeds would misrepresent
it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shipbench.record import ACCURACY, IMPORTED, MEAN_PER_CLASS
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.data_versions import DataVersion
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import task_list
from shipbench.statistics import Interval, PairedTest, bootstrap_interval, paired_test

LoadPredictions: TypeAlias = Callable[[Iterable[str]], pd.DataFrame]
Columns: TypeAlias = dict[str, NDArray[Any]]
_IMAGE = ("index", "label")
# What this module reads of a run.
_FACTS = ("run_id", "arm", "task", "seed", "accuracy", "final_test_acc", "headline_metric", "data_version")
_LEFT_OUT = "Left out of image-level results because some counted runs lack matching predictions on the same images"


@dataclass(frozen=True, eq=False)
class TimesCorrect:
    """How many of ``runs`` classify each image correctly (n,); the index of ``labels`` names the images.

    Images count alike under the metric accuracy. Under mean-per-class, the classes count alike.
    """

    times: NDArray[np.int64]
    labels: pd.Series[int]
    runs: int
    metric: str

    def interval(self) -> Interval:
        """Return the mean accuracy in percent by the metric, with its bootstrap interval over images."""
        return bootstrap_interval(100 * self.times / self.runs, classes=self._classes)

    def test(self, other: TimesCorrect) -> PairedTest | None:
        """Compare with ``other`` image by image; None unless images, metric and number of runs are the same."""
        if (self.metric, self.runs) != (other.metric, other.runs) or not self.labels.equals(other.labels):
            return None
        return paired_test(self.times, other.times, self.runs, classes=self._classes)

    @property
    def _classes(self) -> NDArray[np.int64] | None:
        return self.labels.to_numpy() if self.metric == MEAN_PER_CLASS else None


def times_correct(predictions: pd.DataFrame, run_ids: Sequence[str], metric: str) -> TimesCorrect | None:
    """Return how many of ``run_ids`` classify each image correctly; a run that is named twice counts twice.

    None unless all have ``predictions`` on the same images.
    """
    runs = _on_same_images(predictions, run_ids)
    if not runs:
        return None
    times = np.stack([run["predicted"] == run["label"] for run in runs]).sum(axis=0, dtype=np.int64)
    return TimesCorrect(times, _labels(runs[0]), len(runs), metric)


@dataclass(frozen=True, eq=False)
class TaskPredictions:
    """The predictions on one task: ``labels`` (n,), and per arm key the predicted classes (n images x seeds).

    ``confidence`` has the same form, in [0, 1], for arms all of whose runs recorded it. ``metric`` is the headline
    metric of the runs. ``others`` are the predictions of other arms on other images, or under another metric.
    """

    task: str
    labels: pd.Series[int]
    predicted: dict[int, pd.DataFrame]
    confidence: dict[int, pd.DataFrame]
    metric: str = ACCURACY
    others: tuple[TaskPredictions, ...] = ()

    @property
    def groups(self) -> tuple[TaskPredictions, ...]:
        """These predictions and the ``others``."""
        return self, *self.others

    def times_correct(self, arm: Arm, seeds: Sequence[int]) -> TimesCorrect:
        """Return how many of ``seeds`` classify each image correctly."""
        which = (arm.key, *seeds)
        if which not in self._times_correct:
            labels, frame = self.labels.to_numpy(), self.predicted[arm.key]
            times = np.zeros(len(labels), dtype=np.int64)
            for seed in seeds:
                times += frame[seed].to_numpy() == labels
            self._times_correct[which] = TimesCorrect(times, self.labels, len(seeds), self.metric)
        return self._times_correct[which]

    @cached_property
    def _times_correct(self) -> dict[tuple[int, ...], TimesCorrect]:
        """What ``times_correct`` has returned: every other arm is compared with the same baseline."""
        return {}

    def shared_seeds(self, one: Arm, other: Arm) -> list[int]:
        """Return the seeds for which both arms have predictions."""
        frames = [self.predicted.get(arm.key) for arm in (one, other)]
        seeds = (set() if frame is None else {int(seed) for seed in frame.columns} for frame in frames)
        return sorted(set.intersection(*seeds))

    @cached_property
    def class_count(self) -> int:
        """The number of classes that occur as labels or predictions."""
        highest = [int(frame.to_numpy().max()) for frame in self.predicted.values()]
        return 1 + max(int(self.labels.max()), *highest)


def suite_predictions(
    study: Study, suite: str, baselines: Sequence[Arm], load: LoadPredictions | None
) -> Mapping[str, TaskPredictions]:
    """Return the predictions of the main arms of a suite by task, for tasks that have any.

    An arm is left out if its runs differ in images or metric, among themselves or from those of every one of the
    ``baselines`` and of the first arm that is not left out. Baselines come first.
    """
    if load is None:
        return {}
    arms = [*baselines, *(arm for arm in study.arms_of(suite, main=True) if arm not in baselines)]
    keys = {arm.key for arm in baselines}
    by_task = ((task, _task_predictions(study, arms, keys, task, load)) for task in study.tasks_of(suite))
    return {task: predictions for task, predictions in by_task if predictions is not None}


def left_out(study: Study, suite: str, predictions: Mapping[str, TaskPredictions]) -> str:
    """Name the arms and tasks that have accuracies but no usable predictions; empty if there are none."""
    missing = {
        arm.label: [
            task
            for task in map(str, study.accuracies(arm))
            if task not in predictions or not any(arm.key in part.predicted for part in predictions[task].groups)
        ]
        for arm in study.arms_of(suite, main=True)
    }
    parts = [f"{label} ({task_list(tasks, study.tasks_of(suite))})" for label, tasks in missing.items() if tasks]
    return f"{_LEFT_OUT}: {'; '.join(parts)}." if parts else ""


def with_chance(results: pd.DataFrame, load: LoadPredictions) -> pd.DataFrame:
    """Fill in missing values of ``chance_acc`` (majority-class accuracy) from the stored test labels.

    Reads the predictions of one run per task and data fingerprint: the first that has any. Imported results have none.
    """
    if "final_test_acc" not in results or "data_fingerprint" not in results:
        return results
    recorded = results.get("chance_acc", pd.Series(float("nan"), index=results.index)).astype(float)
    lacking = results[recorded.isna() & results["final_test_acc"].notna()]
    sources = lacking[lacking["kind"] != IMPORTED] if "kind" in lacking else lacking
    shares = {
        key: _majority_share(load([run_id]) for run_id in runs["run_id"])
        for key, runs in sources.groupby(["task", "data_fingerprint"])
    }
    pairs = zip(lacking["task"], lacking["data_fingerprint"], strict=True)
    computed = pd.Series([shares.get(pair, float("nan")) for pair in pairs], index=lacking.index, dtype=float)
    return results.assign(chance_acc=recorded.fillna(computed))


def _task_predictions(
    study: Study, arms: Sequence[Arm], baselines: Collection[int], task: str, load: LoadPredictions
) -> TaskPredictions | None:
    """Return the predictions of the counted runs of ``arms`` on a task; None if there are none.

    The arms begin with the ``baselines``, which are given by key: only they and the first arm found groups.
    """
    counted = _runs_with_final_accuracy(study, arms, task)
    groups: list[dict[int, _ArmPredictions]] = []
    # One arm at a time reuses memory; clearing new memory for all of them would take as long as reading the files.
    for key in (arm.key for arm in arms if arm.key in counted):
        part = _arm_predictions(counted[key], load)
        if part is None:
            continue
        group = next((group for group in groups if part.pairs_with_all(list(group.values()))), None)
        if group is not None:
            group[key] = part
        elif key in baselines or not groups:
            groups.append({key: part})
    parts = [_of_group(task, group) for group in groups]
    return replace(parts[0], others=tuple(parts[1:])) if parts else None


def _of_group(task: str, group: Mapping[int, _ArmPredictions]) -> TaskPredictions:
    """Return the predictions of arms on the same images, which are given by key, as predictions on their task."""
    first = next(iter(group.values()))
    predicted = {key: part.predicted for key, part in group.items()}
    confidence = {key: part.confidence for key, part in group.items() if part.confidence is not None}
    return TaskPredictions(task, first.labels, predicted, confidence, first.metric)


class _Run(NamedTuple):
    """A counted run of an arm on a task."""

    run_id: str
    seed: int
    metric: str
    version: DataVersion


@dataclass(frozen=True, eq=False)
class _ArmPredictions:
    """The predictions of an arm on a task in the form of ``TaskPredictions``; no confidence if a run lacks some."""

    labels: pd.Series[int]
    predicted: pd.DataFrame
    confidence: pd.DataFrame | None
    metric: str
    version: DataVersion

    def pairs_with_all(self, others: Sequence[_ArmPredictions]) -> bool:
        """Return whether test images and metric are those of ``others``, which share theirs."""
        # A version that does not state a fact agrees with two that do not agree.
        same = self.metric == others[0].metric and all(self.version.is_tested_as(other.version) for other in others)
        return same and self.labels.equals(others[0].labels)


def _arm_predictions(runs: Sequence[_Run], load: LoadPredictions) -> _ArmPredictions | None:
    """Return the predictions of ``runs`` of an arm on a task; None unless all share images and metric."""
    run_ids, kinds = [run.run_id for run in runs], {(run.metric, run.version) for run in runs}
    columns = _on_same_images(load(run_ids), run_ids)
    if not columns or len(kinds) > 1:
        return None
    by_seed = {run.seed: part for run, part in zip(runs, columns, strict=True)}
    confidence = _of_seeds(by_seed, "confidence", "float32") if "confidence" in columns[0] else None
    if confidence is not None and confidence.isna().to_numpy().any():
        confidence = None
    return _ArmPredictions(_labels(columns[0]), _of_seeds(by_seed, "predicted", "int32"), confidence, *kinds.pop())


def _on_same_images(predictions: pd.DataFrame, run_ids: Sequence[str]) -> list[Columns]:
    """Return the columns of ``run_ids``; empty unless all have ``predictions`` on the same images.

    Names of classes, which another program may have written in place of numbers, are no predictions.
    """
    numbered = len(predictions) and all(map(pd.api.types.is_numeric_dtype, predictions.dtypes[["label", "predicted"]]))
    by_run = _by_run(predictions) if numbered else {}
    runs = [by_run[run_id] for run_id in run_ids if run_id in by_run]
    return runs if len(runs) == len(run_ids) and all(_same_images(run, runs[0]) for run in runs) else []


def _same_images(one: Columns, other: Columns) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in _IMAGE)


def _labels(run: Columns) -> pd.Series[int]:
    """Return the labels of a run by image, copied, because a view would keep all columns of several runs."""
    return pd.Series(run["label"].astype(int), index=pd.Index(run["index"], name="index", copy=True), name="label")


def _by_run(frame: pd.DataFrame) -> dict[str, Columns]:
    """Return the columns of every run as arrays in the order of its images; series of pandas take ten times as long."""
    arrays = {name: frame[name].to_numpy() for name in (*_IMAGE, "predicted", "confidence") if name in frame}
    by_run = {}
    for run_id, part in _rows_by_run(frame["run_id"]).items():
        columns = {name: values[part] for name, values in arrays.items()}
        if (columns["index"][1:] < columns["index"][:-1]).any():
            order = np.argsort(columns["index"], kind="stable")
            columns = {name: values[order] for name, values in columns.items()}
        by_run[run_id] = columns
    return by_run


def _rows_by_run(run_ids: pd.Series[Any]) -> dict[str, slice | NDArray[np.intp]]:
    """Return the rows of every run: a slice, which copies nothing, if they lie together as those of stored runs do."""
    runs = run_ids.astype("category").cat
    codes, names = runs.codes.to_numpy(), list(map(str, runs.categories))
    starts = np.flatnonzero(np.concatenate([codes[:1] == codes[:1], codes[1:] != codes[:-1]]))
    stretches = codes[starts].tolist()
    if len(set(stretches)) < len(stretches):
        return {names[code]: np.flatnonzero(codes == code) for code in sorted(set(stretches)) if code >= 0}
    return {
        names[code]: slice(*ends)
        for code, ends in zip(stretches, pairwise([*starts, len(codes)]), strict=True)
        if code >= 0
    }


def _of_seeds(by_seed: Mapping[int, Columns], column: str, kind: str) -> pd.DataFrame:
    """Return a column of the predictions of an arm, as images x seeds."""
    values = np.stack([run[column] for run in by_seed.values()], dtype=kind, casting="unsafe")
    return pd.DataFrame(values.T, columns=list(by_seed), copy=False)


def _runs_with_final_accuracy(study: Study, arms: Sequence[Arm], task: str) -> dict[int, list[_Run]]:
    """Return the counted runs on a task by arm key and seed, without arms that have one whose accuracy is not final."""
    runs = study.runs_of(arms)[list(_FACTS)]
    runs = runs[(runs["task"] == task) & runs["accuracy"].notna()]
    is_final = np.isclose(runs["accuracy"], runs["final_test_acc"])
    final = runs[~runs["arm"].isin(runs.loc[~is_final, "arm"])].sort_values("seed", kind="stable")
    by_arm: dict[int, list[_Run]] = {}
    names = ("arm", "run_id", "seed", "headline_metric", "data_version")
    for key, *facts in zip(*(final[name] for name in names), strict=True):
        by_arm.setdefault(key, []).append(_Run(*facts))
    return by_arm


def _majority_share(predictions: Iterable[pd.DataFrame]) -> float:
    first = next((frame for frame in predictions if len(frame)), None)
    return float("nan") if first is None else float(first["label"].value_counts(normalize=True).max())
