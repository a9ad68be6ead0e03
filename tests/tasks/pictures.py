"""Small folders of real PNG files, one colour per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("ant", "bee", "wasp")


def picture(seed: int, colour: int, size: tuple[int, int] = (20, 14)) -> Image.Image:
    """Return a noisy image in which one channel is brighter than the others."""
    pixels = np.random.default_rng(seed).integers(0, 80, (size[1], size[0], 3))
    pixels[..., colour % 3] += 120
    return Image.fromarray(pixels.astype(np.uint8))


def image_folder(root: Path, splits: Mapping[str, Sequence[int]], names: Sequence[str] = NAMES) -> Path:
    """Write ``root/<split>/<class>/<index>.png``; the split "" stands for a folder of classes."""
    for number, (split, sizes) in enumerate(splits.items()):
        for label, (name, size) in enumerate(zip(names, sizes, strict=True)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(size):
                picture(10_000 * number + 100 * label + index, label).save(folder / f"{index}.png")
    return root
