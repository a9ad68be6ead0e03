"""The pictures of the demo suite: drawn or cut once, kept in the cache folder, memory-mapped from there.

A picture set is two files whose names contain the SHA-256 of their content, so that images and labels from different
drawings cannot be combined. The labels are written last; a file that does not match its name is drawn again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipbench.data.demo.generators import PictureSet, picture_set_of
from shipbench.data.demo.types import Pictures
from shipbench.data.types import Split
from shipbench.errors import ShipbenchError
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.console import say
from shipbench.runtime.files import atomic_path, taking_turns
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

_IMAGES, _LABELS = ".images.npy", ".labels.npy"


@dataclass(frozen=True)
class _Stored:
    """A picture set in the cache: the SHA-256 of its content, and its two files."""

    digest: str
    images: Path
    labels: Path


def fingerprint(task: Task) -> str:
    """Return the SHA-256 (hex) that identifies a demo task's native pixels and labels, training and test.

    Draws the pictures on first use. Raises ``ShipbenchError`` if a wheel they are made from cannot be downloaded.
    """
    return hashlib.sha256(f"{_stored(task).digest} {task.name}".encode()).hexdigest()


def content(task: Task, split: SplitName) -> str:
    """Return the SHA-256 (hex) that identifies a split's native pixels, equal for the tasks of one picture set."""
    return hashlib.sha256(f"{_stored(task).digest} {_rows(task, split)}".encode()).hexdigest()


def native(task: Task, split: SplitName) -> Split:
    """Return a split at its native size: ``(n, size, size, 3)`` uint8 RGB, read-only and memory-mapped.

    Draws the pictures on first use. Raises ``ShipbenchError`` if a wheel they are made from cannot be downloaded.
    """
    picture_set = picture_set_of(task)
    pictures = _load(picture_set, task)
    rows = _rows(task, split)
    labels = np.ascontiguousarray(pictures.labels[rows, picture_set.tasks.index(task.name)])
    return Split(pictures.images[rows], labels)


def _rows(task: Task, split: SplitName) -> slice:
    """Return the rows of a split: train800, val200 and test follow one another, and train is the first two."""
    starts: dict[SplitName, int] = {
        "train800": 0,
        "val200": task.counts["train800"],
        "train": 0,
        "test": task.n_train,
    }
    return slice(starts[split], starts[split] + task.counts[split])


def _stored(task: Task) -> _Stored:
    picture_set = picture_set_of(task)
    return _find(picture_set, task) or _make(picture_set, task)


def _load(picture_set: PictureSet, task: Task) -> Pictures:
    stored = _find(picture_set, task)
    pictures = _read(stored) if stored else None
    if stored and not pictures:
        say(f"the cached pictures of {task.name} are damaged; drawing them again")
        _discard(stored)
    if pictures:
        return pictures
    drawn = _read(_make(picture_set, task))
    if not drawn:
        raise ShipbenchError(
            f"the pictures cached in {cache_dir('demo')} cannot be read back; set SHIPBENCH_CACHE to another folder"
        )
    return drawn


def _find(picture_set: PictureSet, task: Task) -> _Stored | None:
    prefix = picture_set.key(task) + "."
    for labels in sorted(cache_dir("demo").glob(f"{prefix}*{_LABELS}")):
        digest = labels.name.removeprefix(prefix).removesuffix(_LABELS)
        images = labels.with_name(f"{prefix}{digest}{_IMAGES}")
        if images.exists():
            return _Stored(digest, images, labels)
    return None


def _make(picture_set: PictureSet, task: Task) -> _Stored:
    """Draw the pictures, unless another process draws them while this one waits for the lock."""
    folder, key = cache_dir("demo"), picture_set.key(task)
    try:
        with taking_turns(folder / f"{key}.lock", f"waiting for another process to draw {task.name}"):
            return _find(picture_set, task) or _write(picture_set.draw(task.n_train, task.n_test), folder, key)
    except OSError as error:
        raise ShipbenchError(
            f"cannot keep pictures in {folder}: {error}; set SHIPBENCH_CACHE to a folder with room"
        ) from error


def _write(pictures: Pictures, folder: Path, key: str) -> _Stored:
    digest = _digest(pictures)
    stored = _Stored(digest, folder / f"{key}.{digest}{_IMAGES}", folder / f"{key}.{digest}{_LABELS}")
    for target, array in ((stored.images, pictures.images), (stored.labels, pictures.labels)):
        with atomic_path(target) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
    return stored


def _read(stored: _Stored) -> Pictures | None:
    """Return the pictures if their digest is the one in their names, else ``None``."""
    try:
        images = np.load(stored.images, mmap_mode="r", allow_pickle=False)
        pictures = Pictures(images, np.load(stored.labels, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
    return pictures if _digest(pictures) == stored.digest else None


def _discard(stored: _Stored) -> None:
    stored.labels.unlink(missing_ok=True)
    stored.images.unlink(missing_ok=True)


def _digest(pictures: Pictures) -> str:
    """Return the SHA-256 (hex) of shapes, pixels and labels, the same on every machine."""
    digest = hashlib.sha256(f"{pictures.images.shape} {pictures.labels.shape}".encode())
    images: NDArray[np.uint8] = np.ascontiguousarray(pictures.images)
    digest.update(images.data)
    digest.update(np.ascontiguousarray(pictures.labels, dtype="<i8").data)
    return digest.hexdigest()
