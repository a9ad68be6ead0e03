"""What a task's data look like in memory, whatever folder or generator they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shipbench.errors import ShipbenchError
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

ImageFormat: TypeAlias = Literal["jpeg", "png", "array"]


@dataclass(frozen=True)
class Split:
    """Images ``(n, size, size, 3)`` uint8 RGB, read-only and possibly memory-mapped; labels ``(n,)`` int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class TaskData:
    """The splits that were asked for, and what identifies the copy they came from."""

    task: Task
    splits: Mapping[str, Split]
    fingerprint: str
    image_format: ImageFormat

    def __getitem__(self, name: SplitName) -> Split:
        """Return one split; a split that was not asked for does not exist here."""
        if name not in self.splits:
            raise ShipbenchError(f"the data of this run have no {name!r} split, only {sorted(self.splits)}")
        return self.splits[name]


@dataclass(frozen=True)
class NativeSplit:
    """Labels ``(n,)`` int64, and how to get image ``i`` as a Pillow image of mode RGB."""

    labels: NDArray[np.int64]
    open: Callable[[int], Image.Image]
