"""The pictures that a generator returns, and the two sampling rules that the generators share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pictures:
    """Native pictures ``(n, size, size, 3)`` uint8, training before test, and labels ``(n, columns)`` int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            raise ValueError(f"pictures must be (n, size, size, 3) uint8, not {self.images.shape} {self.images.dtype}")
        if self.labels.shape[:1] != self.images.shape[:1] or self.labels.ndim != 2 or self.labels.dtype != np.int64:
            raise ValueError(f"labels must be (n, columns) int64, not {self.labels.shape} {self.labels.dtype}")


def evenly_mixed(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return a random order ``(n,)`` in which every stretch has about the class frequencies of the whole."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return np.argsort(place, kind="stable")


def shares(available: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return how many of each class to take, ``total`` in all, as equal as ``available`` permits.

    Raises ``ValueError`` if fewer than ``total`` are available.
    """
    if available.sum() < total:
        raise ValueError(f"{total} pictures requested, but only {available.sum()} available")
    taken = np.zeros_like(available)
    while (missing := total - int(taken.sum())) > 0:
        open_classes = np.flatnonzero(taken < available)
        each = max(missing // len(open_classes), 1)
        chosen = open_classes[:missing]
        taken[chosen] = np.minimum(taken[chosen] + each, available[chosen])
    return taken
