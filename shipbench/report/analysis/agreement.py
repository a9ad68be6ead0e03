"""Share of test images on which two arms predict the same class."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TypeAlias

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.predictions import TaskPredictions
from shipbench.report.analysis.study import Study

Agreement: TypeAlias = Mapping[tuple[int, int], Mapping[str, float]]


def agreement(study: Study, suite: str, predictions: Mapping[str, TaskPredictions]) -> Agreement:
    """Return the share of equal predictions, in [0, 1], per task for every pair of main arms.

    Pairs are arm keys in table order (the later arm first). An arm paired with itself compares its own seeds.
    """
    arms = study.arms_of(suite, main=True)
    pairs: dict[tuple[int, int], dict[str, float]] = {}
    for task, in_task in predictions.items():
        for i, one in enumerate(arms):
            for other in arms[: i + 1]:
                share = _share(in_task, one, other)
                if share is not None:
                    pairs.setdefault((one.key, other.key), {})[task] = share
    return pairs


def _share(predictions: TaskPredictions, one: Arm, other: Arm) -> float | None:
    seeds = predictions.shared_seeds(one, other)
    places = range(len(seeds))
    pairs = [(a, b) for a in places for b in places if (a < b if one == other else a == b)]
    if not pairs:
        return None
    # NumPy arrays, because pandas would align the two columns of every pair.
    ours, theirs = (predictions.predicted[arm.key][seeds].to_numpy() for arm in (one, other))
    return fmean(float((ours[:, a] == theirs[:, b]).mean()) for a, b in pairs)
