"""t-SNE of stored features: two dimensions in which similar images lie close together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import Study

LoadFeatures: TypeAlias = Callable[[str], "pd.DataFrame | None"]
"""Returns the stored features of a run: index, label, f0, f1, ...; None if there are none."""

MOST_POINTS, MOST_CLASSES = 500, 10
FEWEST_POINTS = 5
"""The fewest images whose neighbours say something."""
_SEED = 0
_FEATURE = re.compile(r"f\d+")


@dataclass(frozen=True)
class StoredFeatures:
    """The features (n, D) of a run's test images in the order of the split, and their labels (n,)."""

    arm: Arm
    task: str
    seed: int
    features: NDArray[np.float64]
    labels: NDArray[np.int64]

    @cached_property
    def embedded(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The t-SNE (n, 2) of the images to draw and their labels (n,), kept because a figure has two drawings."""
        places = chosen_points(self.labels)
        return embed(self.features[places]), self.labels[places]


def stored_features(study: Study, suite: str, load: LoadFeatures | None) -> Iterator[StoredFeatures]:
    """Yield the features of the run with the lowest seed that has any, by main arm and task."""
    if load is None:
        return
    for arm in study.arms_of(suite, main=True):
        runs = study.runs_of([arm])
        runs = runs[runs["accuracy"].notna()].sort_values("seed")
        by_task: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for task, seed, run_id in runs[["task", "seed", "run_id"]].itertuples(index=False, name=None):
            by_task[task].append((seed, run_id))
        for task in study.tasks_of(suite):
            for seed, run_id in by_task[task]:
                frame = load(run_id)
                if frame is not None:
                    yield _as_arrays(arm, task, int(seed), frame)
                    break


def chosen_points(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of the images to draw, the same for all methods with the same test images.

    They are those of the ``MOST_CLASSES`` classes with the most images, and of these a seeded draw of ``MOST_POINTS``.
    """
    classes, counts = np.unique(labels, return_counts=True)
    largest = classes[np.argsort(-counts, kind="stable")][:MOST_CLASSES]
    places = np.flatnonzero(np.isin(labels, largest))
    drawn = np.random.default_rng(_SEED).permutation(places)[:MOST_POINTS]
    return np.sort(drawn)


def embed(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the t-SNE (n, 2) of features (n, D), from a start that depends on nothing but the features."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(n_components=2, init="pca", perplexity=perplexity, random_state=_SEED).fit_transform(features)


def _as_arrays(arm: Arm, task: str, seed: int, frame: pd.DataFrame) -> StoredFeatures:
    ordered = frame.sort_values("index")
    names = sorted((name for name in ordered.columns if _FEATURE.fullmatch(name)), key=lambda name: int(name[1:]))
    labels = ordered["label"].to_numpy(dtype=np.int64)
    return StoredFeatures(arm, task, seed, ordered[names].to_numpy(dtype=np.float64), labels)
