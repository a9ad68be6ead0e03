"""Stored per-image predictions, read once per task.

Predictions are from the last epoch, so they match a run only if the selection rule takes the final accuracy. An arm is
left out of a task unless all its counted runs there have matching predictions, because a few seeds would misrepresent
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import task_list

LoadPredictions: TypeAlias = Callable[[Iterable[str]], pd.DataFrame]
Columns: TypeAlias = dict[str, NDArray[Any]]
_IMAGE = ("index", "label")
_CLASS = "int32"
_LEFT_OUT = "Left out of image-level results because some counted runs lack matching predictions on the same images"


@dataclass(frozen=True, eq=False)
class TaskPredictions:
    """The predictions on one task: ``labels`` (n,), and per arm key the predicted classes (n images x seeds).

    ``confidence`` has the same form, in [0, 1], for arms all of whose runs recorded it.
    """

    task: str
    labels: pd.Series[int]
    predicted: dict[int, pd.DataFrame]
    confidence: dict[int, pd.DataFrame]

    def times_correct(self, arm: Arm, seeds: Sequence[int]) -> pd.Series[int]:
        """Return, for every image, how many of ``seeds`` classify it correctly."""
        return self.predicted[arm.key][list(seeds)].eq(self.labels, axis=0).sum(axis=1)

    def shared_seeds(self, one: Arm, other: Arm) -> list[int]:
        """Return the seeds for which both arms have predictions."""
        empty = pd.DataFrame()
        columns = ({int(seed) for seed in self.predicted.get(arm.key, empty).columns} for arm in (one, other))
        return sorted(set.intersection(*columns))


def suite_predictions(
    study: Study, suite: str, baseline: Arm, load: LoadPredictions | None
) -> Mapping[str, TaskPredictions]:
    """Return the predictions of the main arms of a suite by task, for tasks that have any.

    An arm whose images differ from those of the baseline (or of the first arm, if the baseline has no predictions)
    cannot be paired and is left out.
    """
    if load is None:
        return {}
    arms = sorted(study.arms_of(suite, main=True), key=lambda arm: arm != baseline)
    by_task = ((task, _task_predictions(study, arms, task, load)) for task in study.tasks_of(suite))
    return {task: predictions for task, predictions in by_task if predictions is not None}


def left_out(study: Study, suite: str, predictions: Mapping[str, TaskPredictions]) -> str:
    """Name the arms and tasks that have accuracies but no usable predictions; empty if there are none."""
    missing = {
        arm.label: [
            task
            for task in map(str, study.accuracies(arm))
            if task not in predictions or arm.key not in predictions[task].predicted
        ]
        for arm in study.arms_of(suite, main=True)
    }
    parts = [f"{label} ({task_list(tasks, study.tasks_of(suite))})" for label, tasks in missing.items() if tasks]
    return f"{_LEFT_OUT}: {'; '.join(parts)}." if parts else ""


def with_chance(results: pd.DataFrame, load: LoadPredictions) -> pd.DataFrame:
    """Fill in missing values of ``chance_acc`` (majority-class accuracy) from the stored test labels.

    Reads the predictions of one run per task and data fingerprint.
    """
    if "final_test_acc" not in results or "data_fingerprint" not in results:
        return results
    recorded = results.get("chance_acc", pd.Series(float("nan"), index=results.index)).astype(float)
    lacking = results[recorded.isna() & results["final_test_acc"].notna()]
    shares = {
        key: _majority_share(load([runs["run_id"].iloc[0]]))
        for key, runs in lacking.groupby(["task", "data_fingerprint"])
    }
    pairs = zip(lacking["task"], lacking["data_fingerprint"], strict=True)
    computed = pd.Series([shares.get(pair, float("nan")) for pair in pairs], index=lacking.index, dtype=float)
    return results.assign(chance_acc=recorded.fillna(computed))


def _task_predictions(study: Study, arms: Sequence[Arm], task: str, load: LoadPredictions) -> TaskPredictions | None:
    """Return the predictions of the counted runs of ``arms`` on a task; None if there are none."""
    runs = _runs_with_final_accuracy(study, arms, task)
    frame = load(runs["run_id"])
    if not len(frame):
        return None
    by_run = _by_run(frame)
    order = {arm.key: i for i, arm in enumerate(arms)}
    rows = sorted(zip(runs["arm"], runs["seed"], runs["run_id"], strict=True), key=lambda row: (order[row[0]], row[1]))
    incomplete = {key for key, _, run_id in rows if run_id not in by_run}
    rows = [row for row in rows if row[0] not in incomplete]
    if not rows:
        return None
    first = by_run[rows[0][2]]
    images = pd.Index(first["index"], name="index")
    same = {run_id: all(np.array_equal(part[name], first[name]) for name in _IMAGE) for run_id, part in by_run.items()}
    on_other_images = {key for key, _, run_id in rows if not same[run_id]}
    paired = [row for row in rows if row[0] not in on_other_images]
    predicted = _by_arm(by_run, paired, "predicted", _CLASS, images)
    confidence = _by_arm(by_run, paired, "confidence", "float32", images) if "confidence" in frame else {}
    recorded = {key: part for key, part in confidence.items() if not part.isna().to_numpy().any()}
    return TaskPredictions(task, pd.Series(first["label"].astype(int), index=images, name="label"), predicted, recorded)


def _by_run(frame: pd.DataFrame) -> dict[str, Columns]:
    """Return the columns of every run as arrays in the order of its images; series of pandas take ten times as long."""
    arrays = {name: frame[name].to_numpy() for name in (*_IMAGE, "predicted", "confidence") if name in frame}
    by_run = {}
    for run_id, rows in frame.groupby("run_id", sort=False).indices.items():
        ordered = rows[np.argsort(arrays["index"][rows], kind="stable")]
        by_run[str(run_id)] = {name: values[ordered] for name, values in arrays.items()}
    return by_run


def _by_arm(
    by_run: Mapping[str, Columns], rows: Sequence[tuple[int, int, str]], column: str, kind: str, images: pd.Index[Any]
) -> dict[int, pd.DataFrame]:
    """Return a column of the predictions by arm key, as ``images`` x seeds; ``rows`` are key, seed and run id."""
    columns: dict[int, dict[int, NDArray[Any]]] = {}
    for key, seed, run_id in rows:
        columns.setdefault(int(key), {})[int(seed)] = by_run[run_id][column].astype(kind)
    return {key: pd.DataFrame(seeds, index=images) for key, seeds in columns.items()}


def _runs_with_final_accuracy(study: Study, arms: Sequence[Arm], task: str) -> pd.DataFrame:
    """Return the counted runs on a task, without arms that have a run whose accuracy is not the final one."""
    runs = study.runs_of(arms)
    runs = runs[(runs["task"] == task) & runs["accuracy"].notna()]
    is_final = np.isclose(runs["accuracy"], runs["final_test_acc"])
    return runs[~runs["arm"].isin(runs.loc[~is_final, "arm"])]


def _majority_share(predictions: pd.DataFrame) -> float:
    return float(predictions["label"].value_counts(normalize=True).max()) if len(predictions) else float("nan")
