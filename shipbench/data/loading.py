"""A task's images and labels at one image size, decoded once and cached on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import PIL

from shipbench.data import image_cache
from shipbench.data.sources import Source, open_source
from shipbench.data.types import Identity, Split, TaskData
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

_DRAWING_RULES = 1
"""Part of every cache key; raise it whenever decoding or resizing changes the pixels."""

_ALL: tuple[SplitName, ...] = ("train", "test")


@dataclass(frozen=True)
class Copy:
    """The requested splits of a task, opened and identified but not decoded."""

    task: Task
    identity: Identity
    source: Source

    @property
    def counts(self) -> Mapping[SplitName, int]:
        """Number of images of each requested split."""
        return self.source.counts

    @property
    def warning(self) -> str:
        """One sentence if ``counts`` differ from the catalogue's, else an empty string."""
        return self.source.warning

    def key(self, split: SplitName, image_size: int) -> str:
        """Return the image-cache key of a split; it names Pillow's version because that decides the pixels."""
        rules = f"v{_DRAWING_RULES}-pillow{PIL.__version__}"
        return f"{self.task.name}-{split}-{image_size}px-{rules}-{self.identity.fingerprint}"

    def load(self, image_size: int, jobs: int | None = None) -> TaskData:
        """Decode and resize the splits as the function ``load`` does."""
        splits = {str(name): self._load_split(name, image_size, jobs) for name in self.counts}
        return TaskData(self.task, splits, self.identity.fingerprint, self.identity.image_format)

    def _load_split(self, name: SplitName, image_size: int, jobs: int | None) -> Split:
        key, title = self.key(name, image_size), f"{self.task.name} {name}"
        return image_cache.cached_split(key, title, image_size, lambda: self.source.open_split(name), jobs)


def fingerprint(task: Task, root: Path | None, splits: tuple[SplitName, ...] = _ALL) -> str:
    """Return the SHA-256 (hex) that identifies the images and labels of ``task``, independent of their location.

    ``root`` is the folder of VTAB-1k; demo tasks need none. If ``splits`` leaves out test, no file of a VTAB-1k task's
    test split is opened and the fingerprint is that of the 1000 training images. Raises ``InputError`` if the task is
    missing or malformed.
    """
    return find(task, root, splits).identity.fingerprint


def load(
    task: Task,
    *,
    image_size: int,
    root: Path | None,
    splits: tuple[SplitName, ...] = _ALL,
    jobs: int | None = None,
) -> TaskData:
    """Load splits of a task as ``(n, image_size, image_size, 3)`` uint8 RGB, memory-mapped from the image cache.

    ``train`` is train800 followed by val200. Only the requested splits are decoded, on ``jobs`` threads or one per
    usable core; the fingerprint is that of ``fingerprint`` for the same splits. Raises ``InputError`` if the task is
    missing or malformed, if an image cannot be decoded, and if the disk has no room for the decoded images.
    """
    copy = find(task, root, splits, jobs)
    require_room([(copy, image_size)])
    return copy.load(image_size, jobs)


def find(task: Task, root: Path | None, splits: tuple[SplitName, ...], jobs: int | None = None) -> Copy:
    """Open and identify splits of a task without decoding an image; raise ``InputError`` as ``fingerprint`` does."""
    source = open_source(task, root, splits)
    return Copy(task, source.identity(jobs), source)


def require_room(wanted: Iterable[tuple[Copy, int]]) -> None:
    """Raise ``InputError`` if the disk has no room for the images that the cache still lacks.

    ``wanted`` pairs each copy with the image size it is needed at.
    """
    missing: dict[str, int] = {}
    for copy, size in wanted:
        for name, count in copy.counts.items():
            key = copy.key(name, size)
            missing[key] = image_cache.missing_bytes(key, count, size)
    if needed := sum(missing.values()):
        image_cache.require_room(needed)
