"""A share of the training images of every class, the same for every seed and every method."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shipbench.data.types import Split, TaskData
from shipbench.tasks.catalogue import SplitName


def draw_share(labels: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Return the ascending positions of ``share`` (0 to 1) of the images of each class, rounded, but at least one.

    The rank of an image within its class follows from its position in the split, so a larger share contains a smaller
    one.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for position, label in enumerate(labels.tolist()):
        by_class[label].append(position)
    drawn: list[int] = []
    for positions in by_class.values():
        drawn += sorted(positions, key=_rank)[: max(1, round(share * len(positions)))]
    return np.array(sorted(drawn), dtype=np.int64)


def with_share(data: TaskData, name: SplitName, share: float) -> TaskData:
    """Return ``data`` with a share of the images of split ``name``; the other splits are unchanged."""
    if share == 1:
        return data
    split = data[name]
    drawn = draw_share(split.labels, share)
    content = hashlib.sha256(f"{data.content(name)} share\0".encode() + drawn.astype("<i8").tobytes()).hexdigest()
    smaller = Split(split.pixels[drawn], split.labels[drawn], split.framing)
    return replace(data, splits={**data.splits, name: smaller}, contents={**data.contents, name: content})


def _rank(position: int) -> bytes:
    return hashlib.sha256(f"share {position}".encode()).digest()
