"""Results by class and by confidence, from the stored predictions: confusions, accuracy per class, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.normalise import json_list
from shipbench.report.analysis.predictions import TaskPredictions
from shipbench.report.analysis.study import Study

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The predictions with a confidence in one interval: their mean confidence and accuracy, and their share of all."""

    confidence: float
    accuracy: float
    share: float


def confusion(predictions: TaskPredictions, arm: Arm) -> NDArray[np.float64]:
    """Return (true classes x predicted classes): the share of images of a class that each class gets, mean over seeds.

    A row without test images is zero.
    """
    size = predictions.class_count
    cells = size * predictions.labels.to_numpy() + predictions.predicted[arm.key].to_numpy().T
    counts = np.bincount(cells.ravel(), minlength=size**2).reshape(size, size)
    return counts / np.maximum(1, counts.sum(axis=1, keepdims=True))


def class_accuracies(predictions: TaskPredictions, arm: Arm) -> NDArray[np.float64]:
    """Return the accuracy (classes,) of an arm on each class, mean over seeds; NaN for a class without test images."""
    size = predictions.class_count
    labels = predictions.labels.to_numpy()
    correct = predictions.times_correct(arm, predictions.shared_seeds(arm, arm))
    images = np.bincount(labels, minlength=size).astype(float)
    sums = np.bincount(labels, weights=correct.times / correct.runs, minlength=size)
    return np.divide(sums, images, out=np.full(size, np.nan), where=images > 0)


def calibration_bins(predictions: TaskPredictions, arm: Arm) -> list[Bin]:
    """Return the occupied bins of ``BINS`` equal intervals of confidence, over all seeds of an arm."""
    # The images of a seed lie together in memory.
    confidence = predictions.confidence[arm.key].to_numpy().T
    correct = predictions.labels.to_numpy() == predictions.predicted[arm.key].to_numpy().T
    places = np.clip((confidence * BINS).astype(int), 0, BINS - 1).ravel()
    images = np.bincount(places, minlength=BINS)
    confidences = np.bincount(places, weights=confidence.ravel(), minlength=BINS)
    hits = np.bincount(places[correct.ravel()], minlength=BINS)
    return [
        Bin(float(confidences[i] / images[i]), float(hits[i] / images[i]), float(images[i] / images.sum()))
        for i in np.flatnonzero(images)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error (Guo et al. 2017, equation 3), in [0, 1]."""
    return sum(part.share * abs(part.accuracy - part.confidence) for part in bins)


def class_names(study: Study, arm: Arm, task: str, size: int) -> list[str]:
    """Return the names of the classes of a task, or their numbers from 0 if no run on the images of ``arm`` has any."""
    return _recorded_names(study, arm, task, size) or [f"class {number}" for number in range(size)]


def has_class_names(study: Study, arm: Arm, task: str, size: int) -> bool:
    """Return whether a run on the images of ``arm`` has the names of all ``size`` classes of a task."""
    return bool(_recorded_names(study, arm, task, size))


def _recorded_names(study: Study, arm: Arm, task: str, size: int) -> list[str]:
    in_task = (study.runs["suite"] == arm.suite) & (study.runs["task"] == task)
    runs = study.runs.loc[in_task, ["arm", "data_version", "class_names"]]
    is_own = runs["arm"] == arm.key
    # The fingerprint of people's own images is also one of the names.
    fingerprints = {version.fingerprint for version in runs["data_version"][is_own]}
    is_alike = runs["data_version"].map(lambda version: version.fingerprint in fingerprints)
    texts = [*runs["class_names"][is_own], *runs["class_names"][is_alike.astype(bool)]]
    for text in dict.fromkeys(texts):
        names = [str(name) for name in json_list(text)]
        if len(names) >= size:
            return names[:size]
    return []
