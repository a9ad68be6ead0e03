"""The disk space that the documentation names, computed from the catalogue by the rules of the image cache."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shipbench.data.framing import Framing
from shipbench.data.image_cache import missing_bytes
from shipbench.data.types import NativeSplit
from shipbench.tasks.catalogue import VTAB, Task

PAGE = Path(__file__).parents[2] / "docs/how-to/vtab-1k.md"
SIDE = 224

# Sides in pixels of the images of these data sets, according to their publications; those of all others are larger
# than 224, or differ from image to image.
SMALL = {
    "cifar100": 32,
    "svhn": 32,
    "dsprites_loc": 64,
    "dsprites_ori": 64,
    "eurosat": 64,
    "patch_camelyon": 96,
    "smallnorb_azi": 96,
    "smallnorb_ele": 96,
}
SHARED = {"clevr_dist", "dsprites_ori", "smallnorb_ele"}
"""Tasks whose images are those of another task of the catalogue."""


def gigabytes(tasks: Iterable[Task], splits: tuple[str, ...]) -> float:
    """Return the size of the cached images of some splits of tasks."""
    return sum(cached_bytes(task, task.counts[split]) for task in tasks for split in splits) / 1e9


def cached_bytes(task: Task, count: int) -> int:
    native = SMALL.get(task.name, 300)
    split = NativeSplit(np.zeros(count, np.int64), lambda index: Image.new("RGB", (native, native)))
    return missing_bytes(f"absent-{task.name}", count, Framing(SIDE), lambda: split)


@pytest.mark.usefixtures("private_cache")
def test_the_page_names_the_computed_sizes() -> None:
    page = PAGE.read_text()
    everything = gigabytes(VTAB.tasks, ("train", "test"))
    once = gigabytes([task for task in VTAB.tasks if task.name not in SHARED], ("train", "test"))
    tuning = gigabytes(VTAB.tasks, ("train800", "val200"))
    assert f"| decoded images of all 19 tasks | {once:.1f} to {everything:.1f} GB (computed) |" in page
    assert f"| further decoded images for `tune` | at most {tuning:.1f} GB (computed) |" in page
