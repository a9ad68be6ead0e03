"""Stored per-image predictions as a report needs them, read once: per task, images as rows and runs as columns.

Predictions are those after the last epoch. A rule that counts another accuracy of a run has none that belong to it. An
arm is left out of a task unless every run that counts there has predictions of its accuracy: some seeds would not speak
for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import task_list

LoadPredictions: TypeAlias = Callable[[Iterable[str]], pd.DataFrame]
_CLASS = "int32"
_LEFT_OUT = "Without predictions of the accuracy of every run that counts, on the same images, and so left out"


@dataclass(frozen=True, eq=False)
class TaskPredictions:
    """One task: ``labels`` (n,), and per arm key the predicted classes (n images x seeds)."""

    task: str
    labels: pd.Series[int]
    predicted: dict[int, pd.DataFrame]

    def times_right(self, arm: Arm, seeds: Sequence[int]) -> pd.Series[int]:
        """Return for every image in how many of ``seeds`` its prediction is right."""
        return self.predicted[arm.key][list(seeds)].eq(self.labels, axis=0).sum(axis=1)

    def shared_seeds(self, one: Arm, other: Arm) -> list[int]:
        """Return the seeds that both arms have predictions of."""
        empty = pd.DataFrame()
        columns = (set(self.predicted.get(arm.key, empty).columns) for arm in (one, other))
        return sorted(set.intersection(*columns))


def suite_predictions(
    study: Study, suite: str, baseline: Arm, load: LoadPredictions | None
) -> Mapping[str, TaskPredictions]:
    """Return the predictions of the suite's main arms by task; tasks without any are left out.

    Arms with runs on other images than the baseline's (or, where it has none, the first arm's) are left out: they
    cannot be paired.
    """
    if load is None:
        return {}
    arms = sorted(study.arms_of(suite, main=True), key=lambda arm: arm != baseline)
    found = ((task, _task_predictions(study, arms, task, load)) for task in study.tasks_of(suite))
    return {task: predictions for task, predictions in found if predictions is not None}


def left_out(study: Study, suite: str, found: Mapping[str, TaskPredictions]) -> str:
    """Say which arms have accuracies on tasks but are not in ``found``; empty if all are."""
    missing = {
        arm.label: [
            task
            for task in map(str, study.accuracies(arm))
            if task not in found or arm.key not in found[task].predicted
        ]
        for arm in study.arms_of(suite, main=True)
    }
    parts = [f"{label} ({task_list(tasks, study.tasks_of(suite))})" for label, tasks in missing.items() if tasks]
    return f"{_LEFT_OUT}: {'; '.join(parts)}." if parts else ""


def _task_predictions(study: Study, arms: Sequence[Arm], task: str, load: LoadPredictions) -> TaskPredictions | None:
    """Return the predictions of the arms' counted runs on a task; None if there are none."""
    runs = study.runs_of(arms)
    runs = runs[(runs["task"] == task) & runs["accuracy"].notna()]
    fitting = np.isclose(runs["accuracy"], runs["final_test_acc"])
    runs = runs[~runs["arm"].isin(runs.loc[~fitting, "arm"])]
    frame = load(runs["run_id"])
    if not len(frame):
        return None
    by_run = {str(run_id): part.set_index("index").sort_index() for run_id, part in frame.groupby("run_id")}
    order = {arm.key: i for i, arm in enumerate(arms)}
    rows = sorted(zip(runs["arm"], runs["seed"], runs["run_id"], strict=True), key=lambda row: (order[row[0]], row[1]))
    lacking = {row[0] for row in rows if row[2] not in by_run}
    rows = [row for row in rows if row[0] not in lacking]
    if not rows:
        return None
    labels = by_run[rows[0][2]]["label"]
    others = {row[0] for row in rows if not by_run[row[2]]["label"].equals(labels)}
    columns: dict[int, dict[int, pd.Series[int]]] = {}
    for key, seed, run_id in rows:
        if key not in others:
            columns.setdefault(int(key), {})[int(seed)] = by_run[run_id]["predicted"].astype(_CLASS)
    return TaskPredictions(task, labels, {key: pd.DataFrame(found) for key, found in columns.items()})


def with_chance(results: pd.DataFrame, load: LoadPredictions) -> pd.DataFrame:
    """Fill in ``chance_acc``, the share of the commonest class among test labels, where a record lacks it.

    One run per copy of a task is looked at, for its labels alone.
    """
    if "final_test_acc" not in results or "data_fingerprint" not in results:
        return results
    known = results.get("chance_acc", pd.Series(float("nan"), index=results.index)).astype(float)
    lacking = results[known.isna() & results["final_test_acc"].notna()]
    shares = {
        key: _commonest(load([runs["run_id"].iloc[0]])) for key, runs in lacking.groupby(["task", "data_fingerprint"])
    }
    pairs = zip(lacking["task"], lacking["data_fingerprint"], strict=True)
    found = pd.Series([shares.get(pair, float("nan")) for pair in pairs], index=lacking.index, dtype=float)
    return results.assign(chance_acc=known.fillna(found))


def _commonest(predictions: pd.DataFrame) -> float:
    return float(predictions["label"].value_counts(normalize=True).max()) if len(predictions) else float("nan")
