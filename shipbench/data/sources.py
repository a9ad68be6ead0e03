"""A split's images at the size they were stored or rendered at, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shipbench.data.images import decode
from shipbench.data.types import SplitName
from shipbench.data.vtab.folder import TaskSource, open_task
from shipbench.data.vtab.split_files import read_bytes
from shipbench.tasks import Task


@dataclass(frozen=True)
class NativeSplit:
    """Labels ``(n,)`` int64, and how to get image ``i`` as a Pillow image of mode RGB."""

    labels: NDArray[np.int64]
    open: Callable[[int], Image.Image]


def native_split(task: Task, root: Path | None, name: SplitName) -> NativeSplit:
    """Return a split of a VTAB-1k task (from ``root``) or of a demo task."""
    return vtab_split(open_task(task, root), name) if task.suite == "vtab-1k" else demo_split(task, name)


def vtab_split(source: TaskSource, name: SplitName) -> NativeSplit:
    """Return a split whose images are decoded when they are asked for."""
    files = [source.folder / entry.path for entry in source.entries(name)]
    labels = np.array([entry.label for entry in source.entries(name)], dtype=np.int64)
    return NativeSplit(labels, lambda index: decode(read_bytes(files[index]), files[index]))


def demo_split(task: Task, name: SplitName) -> NativeSplit:
    """Return a split of a demo task, rendered or unpacked whole."""
    from shipbench.data.demo import pictures

    split = pictures.native(task, name)
    return NativeSplit(split.labels, lambda index: Image.fromarray(split.images[index]))
