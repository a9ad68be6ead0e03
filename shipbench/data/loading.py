"""One task's images and labels at one size, from a VTAB-1k folder or from the embedded demo suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import PIL

from shipbench.data.fingerprints import Identity, identify
from shipbench.data.imagecache import cached_split
from shipbench.data.native import NativeSplit, demo_split, vtab_split
from shipbench.data.types import Split, SplitName, TaskData
from shipbench.data.vtab import find_base, how_to_check, open_task
from shipbench.errors import InputError
from shipbench.tasks import Task

_DRAWING_RULES = 1
"""Raised whenever decoding or resizing changes what is drawn, so that older cached images are left alone."""

_ALL: tuple[SplitName, ...] = ("train", "test")


def fingerprint(task: Task, root: Path | None, splits: tuple[SplitName, ...] = _ALL) -> str:
    """Return the SHA-256 (hex) that identifies the images and labels of ``task``, wherever they lie.

    ``root`` is the VTAB-1k folder; demo tasks need none. Where ``splits`` leaves out test, no file of a VTAB-1k
    task's test split is opened and the fingerprint is that of the 1000. Raises ``InputError`` for a missing or
    malformed folder.
    """
    return _open(task, root, None, splits)[1].fingerprint


def load(
    task: Task,
    *,
    image_size: int,
    root: Path | None,
    splits: tuple[SplitName, ...] = _ALL,
    jobs: int | None = None,
) -> TaskData:
    """Load splits of a task as ``(n, image_size, image_size, 3)`` uint8 RGB, memory-mapped from the image cache.

    ``train`` is the 1000 (train800 followed by val200). Only the splits asked for are decoded, in ``jobs`` threads or
    one per usable core; the fingerprint is that of ``fingerprint`` for the same splits. Raises ``InputError`` for a
    missing or malformed folder and for images that cannot be decoded.
    """
    open_split, copy = _open(task, root, jobs, splits)

    def load_split(name: SplitName) -> Split:
        # Pixels are what this release of Pillow makes of a file.
        key = f"{task.name}-{name}-{image_size}px-v{_DRAWING_RULES}-pillow{PIL.__version__}-{copy.fingerprint}"
        return cached_split(key, f"{task.name} {name}", image_size, lambda: open_split(name), jobs)

    return TaskData(task, {name: load_split(name) for name in splits}, copy.fingerprint, copy.image_format)


def identity(task: Task, root: Path | None, jobs: int | None = None) -> Identity:
    """Return a task's fingerprint and how its images are stored; raises as ``fingerprint`` does."""
    return _open(task, root, jobs, _ALL)[1]


def _open(
    task: Task, root: Path | None, jobs: int | None, splits: tuple[SplitName, ...]
) -> tuple[Callable[[SplitName], NativeSplit], Identity]:
    if task.suite == "vtab-1k":
        return _open_folder(task, find_base(root), jobs, splits)

    from shipbench.data import demo

    return lambda name: demo_split(task, name), Identity(demo.fingerprint(task), "array")


def _open_folder(
    task: Task, base: Path, jobs: int | None, splits: tuple[SplitName, ...]
) -> tuple[Callable[[SplitName], NativeSplit], Identity]:
    try:
        source = open_task(task, base, with_test="test" in splits)
        return lambda name: vtab_split(source, name), identify(source, jobs)
    except InputError as error:
        raise InputError(f"{error}; {how_to_check(base)}") from error
