"""One task's images and labels at one size, from a VTAB-1k folder or from the embedded demo suite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import PIL

from shipbench.data import image_cache
from shipbench.data.demo.pictures import demo_split
from shipbench.data.types import NativeSplit, Split, TaskData
from shipbench.data.vtab.fingerprints import Identity, identify
from shipbench.data.vtab.folder import count_warning, expected_counts, find_base, how_to_check, open_task, vtab_split
from shipbench.errors import InputError
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

_DRAWING_RULES = 1
"""Raised whenever decoding or resizing changes what is drawn, so that older cached images are left alone."""

_ALL: tuple[SplitName, ...] = ("train", "test")


@dataclass(frozen=True)
class Copy:
    """Splits of a task, found and identified but not decoded.

    ``counts`` are images per split; ``warning`` is a sentence if they are not the catalogue's, else empty.
    """

    task: Task
    identity: Identity
    counts: Mapping[SplitName, int]
    warning: str
    open_split: Callable[[SplitName], NativeSplit]

    def key(self, split: SplitName, image_size: int) -> str:
        """Return the name of a split in the image cache; pixels are what this release of Pillow makes of a file."""
        rules = f"v{_DRAWING_RULES}-pillow{PIL.__version__}"
        return f"{self.task.name}-{split}-{image_size}px-{rules}-{self.identity.fingerprint}"

    def load(self, image_size: int, jobs: int | None = None) -> TaskData:
        """Return the splits as ``load`` does."""
        splits = {str(name): self._load_split(name, image_size, jobs) for name in self.counts}
        return TaskData(self.task, splits, self.identity.fingerprint, self.identity.image_format)

    def _load_split(self, name: SplitName, image_size: int, jobs: int | None) -> Split:
        key, title = self.key(name, image_size), f"{self.task.name} {name}"
        return image_cache.cached_split(key, title, image_size, lambda: self.open_split(name), jobs)


def fingerprint(task: Task, root: Path | None, splits: tuple[SplitName, ...] = _ALL) -> str:
    """Return the SHA-256 (hex) that identifies the images and labels of ``task``, wherever they lie.

    ``root`` is the VTAB-1k folder; demo tasks need none. Where ``splits`` leaves out test, no file of a VTAB-1k
    task's test split is opened and the fingerprint is that of the 1000. Raises ``InputError`` for a missing or
    malformed folder.
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

    ``train`` is the 1000 (train800 followed by val200). Only the splits asked for are decoded, in ``jobs`` threads or
    one per usable core; the fingerprint is that of ``fingerprint`` for the same splits. Raises ``InputError`` for a
    missing or malformed folder, for images that cannot be decoded, and for a disk without room for them.
    """
    copy = find(task, root, splits, jobs)
    require_room([(copy, image_size)])
    return copy.load(image_size, jobs)


def identity(task: Task, root: Path | None, jobs: int | None = None) -> Identity:
    """Return a task's fingerprint and how its images are stored; raises as ``fingerprint`` does."""
    return find(task, root, _ALL, jobs).identity


def require_room(wanted: Iterable[tuple[Copy, int]]) -> None:
    """Raise ``InputError`` if the image cache has no room for what is missing there of copies at their image sizes."""
    missing: dict[str, int] = {}
    for copy, size in wanted:
        for name, count in copy.counts.items():
            key = copy.key(name, size)
            missing[key] = image_cache.missing_bytes(key, count, size)
    if needed := sum(missing.values()):
        image_cache.require_room(needed)


def find(task: Task, root: Path | None, splits: tuple[SplitName, ...], jobs: int | None = None) -> Copy:
    """Find splits of a task and identify the copy, without decoding an image; raises as ``fingerprint`` does."""
    if task.suite == "vtab-1k":
        return _find_in_folder(task, root, splits, jobs)

    from shipbench.data.demo import pictures

    counts = {name: expected_counts(task)[name] for name in splits}
    return Copy(task, Identity(pictures.fingerprint(task), "array"), counts, "", lambda name: demo_split(task, name))


def _find_in_folder(task: Task, root: Path | None, splits: tuple[SplitName, ...], jobs: int | None) -> Copy:
    base = find_base(root)
    try:
        source = open_task(task, base, with_test="test" in splits)
        known = identify(source, jobs)
    except InputError as error:
        raise InputError(f"{error}; {how_to_check(base)}") from error
    counts = {name: len(source.entries(name)) for name in splits}
    return Copy(task, known, counts, count_warning(task, counts, base), lambda name: vtab_split(source, name))
