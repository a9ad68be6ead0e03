"""A task's images in numbers: how many per class, how large, how bright."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shipbench.data.conversions import conversion_notes, conversion_of
from shipbench.data.framing import Size
from shipbench.data.parallel import map_items
from shipbench.data.sources import completed, open_source
from shipbench.data.types import ImageFormat
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

_SPLITS: tuple[SplitName, ...] = ("train800", "val200", "train", "test")


@dataclass(frozen=True)
class TaskSummary:
    """A task in numbers.

    ``counts`` are images per class, ``(num_classes,)``, by split. The other four describe the training images at their
    native sizes: ``smallest`` and ``largest`` are ``(width, height)`` in pixels, ``mean`` and ``std`` are per channel
    (red, green, blue) over all pixels, in [0, 1]. ``conversions`` are sentences about those that are not stored as RGB.
    """

    task: Task
    fingerprint: str
    image_format: ImageFormat
    counts: Mapping[SplitName, NDArray[np.int64]]
    smallest: Size
    largest: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    warning: str = ""
    conversions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Moments:
    size: Size
    conversion: str
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]


def summarise(task: Task, root: Path | None, jobs: int | None = None) -> TaskSummary:
    """Summarise a task, decoding its training images; raise ``InputError`` as ``load`` does."""
    source = open_source(task, root, _SPLITS)
    task = completed(task, source)
    identity = source.identity(jobs)
    splits = {name: source.open_split(name) for name in _SPLITS}
    counts: dict[SplitName, NDArray[np.int64]] = {
        name: np.bincount(split.labels, minlength=task.num_classes).astype(np.int64) for name, split in splits.items()
    }
    images = range(len(splits["train"].labels))
    moments = list(
        map_items(lambda index: _moments(splits["train"].open(index)), images, f"reading {task.name} train", jobs)
    )
    sizes = sorted((item.size for item in moments), key=lambda size: size[0] * size[1])
    pixels = sum(width * height for width, height in sizes)
    mean = np.sum([item.sums for item in moments], axis=0) / pixels
    variance = np.sum([item.squares for item in moments], axis=0) / pixels - mean**2
    std = np.sqrt(np.maximum(variance, 0.0))
    return TaskSummary(
        task,
        identity.fingerprint,
        identity.image_format,
        counts,
        sizes[0],
        sizes[-1],
        tuple(float(value) for value in mean),
        tuple(float(value) for value in std),
        source.warning,
        tuple(conversion_notes((item.conversion for item in moments), "training image")),
    )


def _moments(image: Image.Image) -> _Moments:
    # From the histogram: the pixels of a photograph as floating-point numbers take sixteen times its memory.
    times, values = np.reshape(image.histogram(), (3, 256)), np.arange(256) / 255
    return _Moments(image.size, conversion_of(image), times @ values, times @ values**2)
