"""Builders of VTAB-1k folders in the real format, with a few tiny images per split."""

from __future__ import annotations

import errno
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from shipbench.tasks.catalogue import VTAB, Task
from shipbench.tasks.registry import get_task


def disk_is_full(target: Path) -> NoReturn:
    """Stand in for ``atomic_path`` on a disk without room."""
    raise OSError(errno.ENOSPC, "No space left on device")


def left_in(folder: Path) -> list[str]:
    """Return the sorted names of what is in a folder; none if it does not exist."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def small_task(name: str, n_train: int = 10, n_test: int = 6, num_classes: int | None = None) -> Task:
    """Return a task of the catalogue resized to what ``vtab_tree`` writes."""
    task = get_task(name)
    return replace(task, n_train=n_train, n_test=n_test, num_classes=num_classes or task.num_classes)


def encode(pixels: np.ndarray, kind: str = "png") -> bytes:
    """Encode pixels as the bytes of an image file; ``kind`` is a Pillow format."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind.upper())
    return stream.getvalue()


def pixels_of(task: str, split: str, index: int, label: int, size: tuple[int, int]) -> np.ndarray:
    """Draw an image unique to its task, split and index: a colour per label under seeded noise."""
    rng = np.random.default_rng(zlib.crc32(f"{task}/{split}/{index}".encode()))
    colour = np.array([label * 61 % 200, label * 127 % 200, label * 29 % 200])
    return (colour + rng.integers(0, 56, (size[1], size[0], 3))).astype(np.uint8)


def vtab_tree(
    root: Path,
    tasks: Iterable[str] = tuple(task.name for task in VTAB.tasks),
    n_train: int = 10,
    n_test: int = 6,
    image_format: str = "png",
    size: tuple[int, int] = (12, 10),
    folders: dict[str, str] | None = None,
) -> Path:
    """Write a VTAB-1k folder and return it: four fifths of ``n_train`` are train800, the rest val200.

    ``folders`` renames task folders, as in ``{"cifar100": "cifar"}``; ``size`` is width and height in pixels. Labels
    cycle through the classes. No two images are equal, except that train800val200 repeats train800 and val200 byte for
    byte.
    """
    for name in tasks:
        folder = root / (folders or {}).get(name, name)
        _write_task(folder, get_task(name), n_train, n_test, image_format, size)
    return root


def _write_task(folder: Path, task: Task, n_train: int, n_test: int, image_format: str, size: tuple[int, int]) -> None:
    def images(split: str, first: int, count: int) -> list[tuple[bytes, int]]:
        labels = [(first + index) % task.num_classes for index in range(count)]
        drawn = [pixels_of(task.name, split, index, label, size) for index, label in enumerate(labels)]
        return [(encode(pixels, image_format), label) for pixels, label in zip(drawn, labels, strict=True)]

    n_first = n_train * 4 // 5
    train, val = images("train800", 0, n_first), images("val200", n_first, n_train - n_first)
    for split, files in (
        ("train800", train),
        ("val200", val),
        ("train800val200", train + val),
        ("test", images("test", 0, n_test)),
    ):
        write_split(folder, split, files, "jpg" if image_format == "jpeg" else image_format)


def write_split(folder: Path, split: str, files: Sequence[tuple[bytes, int]], suffix: str = "png") -> None:
    """Write one split's images and its split file."""
    (folder / "images" / split).mkdir(parents=True, exist_ok=True)
    lines = []
    for index, (data, label) in enumerate(files):
        path = f"images/{split}/{index:06d}.{suffix}"
        (folder / path).write_bytes(data)
        lines.append(f"{path} {label}\n")
    (folder / f"{split}.txt").write_bytes("".join(lines).encode())
