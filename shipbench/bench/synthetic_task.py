"""A synthetic task of VTAB-1k's size on disk."""

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


_NATIVE_SIZE = 256


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Use a cache of our own, so that decoding is measured and nothing of it stays."""
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
    """Write smooth random JPEG files of a photograph's usual size, and split files in VTAB-1k's format."""
    rng = np.random.default_rng(0)
    classes = get_task(TASK).num_classes
    first = options.train_images * 4 // 5
    counts = {"train800": first, "val200": options.train_images - first, "test": options.test_images}
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
