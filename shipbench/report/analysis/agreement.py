"""Share of test images on which two arms predict the same class."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from statistics import fmean
from typing import Any, TypeAlias

from numpy.typing import NDArray

from shipbench.report.analysis.predictions import TaskPredictions
from shipbench.report.analysis.study import Study

BySeed: TypeAlias = Mapping[Any, NDArray[Any]]
Agreement: TypeAlias = Mapping[tuple[int, int], Mapping[str, float]]


def agreement(study: Study, suite: str, predictions: Mapping[str, TaskPredictions]) -> Agreement:
    """Return the share of equal predictions, in [0, 1], per task for every pair of main arms.

    Pairs are arm keys in table order (the later arm first). An arm paired with itself compares its own seeds.
    """
    arms = study.arms_of(suite, main=True)
    pairs: dict[tuple[int, int], dict[str, float]] = {}
    for task, part in ((task, part) for task, in_task in predictions.items() for part in in_task.groups):
        # NumPy arrays, because pandas would align the two columns of every pair.
        by_seed = {key: dict(zip(frame, frame.to_numpy().T, strict=True)) for key, frame in part.predicted.items()}
        for i, one in enumerate(arms):
            for other in arms[: i + 1]:
                share = _share(by_seed.get(one.key, {}), by_seed.get(other.key, {}), same=one == other)
                if share is not None:
                    pairs.setdefault((one.key, other.key), {})[task] = share
    return pairs


def _share(ours: BySeed, theirs: BySeed, *, same: bool) -> float | None:
    seeds = sorted(ours.keys() & theirs.keys())
    pairs = list(combinations(seeds, 2)) if same else [(seed, seed) for seed in seeds]
    return fmean(float((ours[a] == theirs[b]).mean()) for a, b in pairs) if pairs else None
