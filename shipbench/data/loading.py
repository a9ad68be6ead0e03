"""A task's images and labels at one image size, decoded once and cached on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import PIL

from shipbench.data import image_cache
from shipbench.data.framing import Framing, with_margin
from shipbench.data.sources import completed, open_filled
from shipbench.data.types import Identity, Source, Split, TaskData
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

DRAWING_RULES = 2
"""Part of every cache key; raise it whenever decoding or resizing changes the pixels."""

_TRAINING: frozenset[SplitName] = frozenset({"train", "train800"})
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
        """Return the image-cache key of a split, the same for all tasks that share its images.

        It names Pillow's version because that decides the pixels.
        """
        identity, framing = self.identity, self.framing(split, image_size)
        content = identity.contents.get(split) or _content_of_one_task(self.task, split, identity.fingerprint)
        return f"{content[:32]}-{framing.side}px-{framing.resize}-v{DRAWING_RULES}-pillow{PIL.__version__}"

    def framing(self, split: SplitName, image_size: int) -> Framing:
        """Return how the images of a split become squares: with a margin if random crops will be cut from them."""
        augmented = self.task.augment != "none" and split in _TRAINING
        return Framing(with_margin(image_size) if augmented else image_size, self.task.resize)

    def load(self, image_size: int, jobs: int | None = None) -> TaskData:
        """Decode and resize the splits as the function ``load`` does."""
        splits = {str(name): self._load_split(name, image_size, jobs) for name in self.counts}
        identity = self.identity
        return TaskData(self.task, splits, identity.fingerprint, identity.image_format, identity.contents)

    def missing_bytes(self, split: SplitName, image_size: int) -> int:
        """Return the number of bytes that loading a split would add to the image cache."""
        framing = self.framing(split, image_size)
        key, count = self.key(split, image_size), self.counts[split]
        return image_cache.missing_bytes(key, count, framing, lambda: self.source.open_split(split))

    def _load_split(self, name: SplitName, image_size: int, jobs: int | None) -> Split:
        split, framing = self.source.open_split(name), self.framing(name, image_size)
        key, title = self.key(name, image_size), f"{self.task.name} {name}"
        pixels = image_cache.cached_pixels(key, title, framing, split, jobs)
        return Split(pixels, split.labels, framing)


def _content_of_one_task(task: Task, split: SplitName, fingerprint: str) -> str:
    return hashlib.sha256(f"{task.name} {split} {fingerprint}".encode()).hexdigest()


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

    ``train`` is train800 followed by val200. Of a task that augments with ``flip-crop``, training images are larger
    (``framing.with_margin``). Only the requested splits are decoded, on ``jobs`` threads or one per usable core; the
    fingerprint is that of ``fingerprint`` for the same splits. Raises ``InputError`` if the task is missing or
    malformed, if an image cannot be decoded, and if the disk has no room for the decoded images.
    """
    copy = find(task, root, splits, jobs)
    require_room([(copy, image_size)])
    return copy.load(image_size, jobs)


def find(task: Task, root: Path | None, splits: tuple[SplitName, ...], jobs: int | None = None) -> Copy:
    """Open and identify splits of a task without decoding an image; raise ``InputError`` as ``fingerprint`` does."""
    return identified(task, open_filled(task, root, splits), jobs)


def identified(task: Task, source: Source, jobs: int | None = None) -> Copy:
    """Return the opened splits of a task with the identity of their images; raise ``InputError`` as ``find`` does."""
    return Copy(completed(task, source), source.identity(jobs), source)


def require_room(wanted: Iterable[tuple[Copy, int]]) -> None:
    """Raise ``InputError`` if the disk has no room for the images that the cache still lacks.

    ``wanted`` pairs each copy with the image size it is needed at.
    """
    missing: dict[str, int] = {}
    for copy, size in wanted:
        for name in copy.counts:
            key = copy.key(name, size)
            if key not in missing:
                missing[key] = copy.missing_bytes(name, size)
    if needed := sum(missing.values()):
        image_cache.require_room(needed)
