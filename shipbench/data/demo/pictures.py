"""The embedded demo suite's pictures: drawn or cut once, kept in the cache folder, memory-mapped from there.

A set of pictures is two files whose names carry the SHA-256 of their content, so that images and labels of different
origin can't meet under one name; the labels are written last, and a file that does not match its name is drawn anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shipbench.data.demo.generators import Source, source_of
from shipbench.data.demo.types import Pictures
from shipbench.data.types import NativeSplit, Split
from shipbench.errors import ShipbenchError
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.console import say
from shipbench.runtime.files import atomic_path, taking_turns
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

_IMAGES, _LABELS = ".images.npy", ".labels.npy"


@dataclass(frozen=True)
class _Stored:
    """A set of pictures in the cache: the SHA-256 of its content, and its two files."""

    digest: str
    images: Path
    labels: Path


def fingerprint(task: Task) -> str:
    """Return the SHA-256 (hex) that identifies a demo task's native pixels and labels, training and test.

    Draws the pictures on first use. Raises ``ShipbenchError`` where a package they come from cannot be downloaded.
    """
    source = source_of(task)
    stored = _find(source, task) or _make(source, task)
    return hashlib.sha256(f"{stored.digest} {task.name}".encode()).hexdigest()


def native(task: Task, split: SplitName) -> Split:
    """Return a split at its native size: ``(n, size, size, 3)`` uint8 RGB, read-only and memory-mapped.

    ``train800`` and ``val200`` are the first four fifths and the last fifth of ``train`` (800 and 200 of 1000). Draws
    the pictures on first use. Raises ``ShipbenchError`` where a package they come from cannot be downloaded.
    """
    source = source_of(task)
    pictures = _load(source, task)
    rows = _rows(task, split)
    labels = np.ascontiguousarray(pictures.labels[rows, source.tasks.index(task.name)])
    return Split(pictures.images[rows], labels)


def _rows(task: Task, split: SplitName) -> slice:
    fit = task.n_train - task.n_train // 5
    starts: dict[SplitName, tuple[int, int]] = {
        "train800": (0, fit),
        "val200": (fit, task.n_train),
        "train": (0, task.n_train),
        "test": (task.n_train, task.n_train + task.n_test),
    }
    return slice(*starts[split])


def _load(source: Source, task: Task) -> Pictures:
    stored = _find(source, task)
    pictures = _read(stored) if stored else None
    if stored and not pictures:
        say(f"the cached pictures of {task.name} are damaged; drawing them again")
        _discard(stored)
    if pictures:
        return pictures
    made = _read(_make(source, task))
    if not made:
        raise ShipbenchError(
            f"pictures cached in {cache_dir('demo')} cannot be read back; set SHIPBENCH_CACHE elsewhere"
        )
    return made


def _find(source: Source, task: Task) -> _Stored | None:
    prefix = source.key(task) + "."
    for labels in sorted(cache_dir("demo").glob(f"{prefix}*{_LABELS}")):
        digest = labels.name.removeprefix(prefix).removesuffix(_LABELS)
        images = labels.with_name(f"{prefix}{digest}{_IMAGES}")
        if images.exists():
            return _Stored(digest, images, labels)
    return None


def _make(source: Source, task: Task) -> _Stored:
    """Draw the pictures, unless another process has done so while this one waited for its turn."""
    folder = cache_dir("demo")
    try:
        with taking_turns(folder / f"{source.key(task)}.lock", f"another process is drawing {task.name}; waiting"):
            return _find(source, task) or _write(source.draw(task.n_train, task.n_test), folder, source.key(task))
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
    """Return the pictures if they are what their name says, else None."""
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


def demo_split(task: Task, name: SplitName) -> NativeSplit:
    """Return a split of a demo task, rendered or unpacked whole."""
    from shipbench.data.demo import pictures

    split = pictures.native(task, name)
    return NativeSplit(split.labels, lambda index: Image.fromarray(split.images[index]))
