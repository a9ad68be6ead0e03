"""A synthetic copy of a VTAB-1k task on disk, and a temporary image cache to read it through."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from shipbench.bench.options import EndToEndOptions
from shipbench.tasks.registry import get_task

TASK = "dtd"
"""The task whose name and number of classes the synthetic images take."""

# Side of the JPEG files in pixels, a photograph's usual size in VTAB-1k.
_NATIVE_SIZE = 256


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Set ``SHIPBENCH_CACHE`` to ``folder`` within the context: nothing is decoded before, and nothing stays after."""
    before = os.environ.get("SHIPBENCH_CACHE")
    os.environ["SHIPBENCH_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SHIPBENCH_CACHE"]
        else:
            os.environ["SHIPBENCH_CACHE"] = before


def write_images(folder: Path, options: EndToEndOptions) -> None:
    """Write smooth random JPEG files and split files in VTAB-1k's format, the same on every call.

    Four fifths of the training images are train800, the others val200.
    """
    rng = np.random.default_rng(0)
    classes = get_task(TASK).num_classes
    train800 = options.train_images * 4 // 5
    counts = {"train800": train800, "val200": options.train_images - train800, "test": options.test_images}
    lines: dict[str, list[str]] = {}
    for split, count in counts.items():
        (folder / split).mkdir(parents=True)
        for index in range(count):
            name = f"{split}/{index:06d}.jpg"
            coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((_NATIVE_SIZE, _NATIVE_SIZE)).save(folder / name, quality=90)
            lines.setdefault(split, []).append(f"{name} {index % classes}\n")
    lines["train800val200"] = lines["train800"] + lines["val200"]
    for split, rows in lines.items():
        (folder / f"{split}.txt").write_text("".join(rows), encoding="utf-8")
