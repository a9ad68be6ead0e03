"""VTAB-1k as a source: opening and verifying the tasks of a VTAB-1k folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shipbench.data.images import decode, read_bytes
from shipbench.data.types import Identity, NativeSplit, TaskReport
from shipbench.data.vtab.fingerprints import identify
from shipbench.data.vtab.folder import (
    IncompleteCopyError,
    TaskFolder,
    doubts_about,
    find_base,
    find_task,
    how_to_check,
    open_task,
)
from shipbench.data.vtab.verify import verify_task
from shipbench.errors import InputError
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName
from shipbench.tasks.own import source_of_path


@dataclass(frozen=True)
class VtabSource:
    """The requested splits of a task in the VTAB-1k folder ``base``."""

    folder: TaskFolder
    base: Path
    counts: Mapping[SplitName, int]

    @property
    def warning(self) -> str:
        """One sentence about counts that differ from the catalogue's and images listed repeatedly, else empty."""
        return doubts_about(self.folder, self.counts, self.base)

    def identity(self, jobs: int | None = None) -> Identity:
        """Return the identity of train800, val200 and, if it was requested, test."""
        with _advising_to_check(self.base):
            return identify(self.folder, jobs)

    def open_split(self, name: SplitName) -> NativeSplit:
        """Return a split whose images are decoded on access."""
        entries = self.folder.split(name)
        files = [self.folder.path / entry.path for entry in entries]
        labels = np.array([entry.label for entry in entries], dtype=np.int64)
        return NativeSplit(labels, lambda index: decode(read_bytes(files[index]), files[index]))


class VtabFolder:
    """The source ``vtab-1k``: folders in VTAB-1k's format."""

    def open(self, task: Task, root: Path | None, splits: tuple[SplitName, ...]) -> VtabSource:
        """Open splits of a task below ``root``; raise ``InputError`` if a split file is missing or malformed."""
        base = _base_of(root)
        find_task(task, base)
        with _advising_to_check(base):
            folder = open_task(task, base, with_test="test" in splits)
        return VtabSource(folder, base, {name: len(folder.split(name)) for name in splits})

    def verify(self, task: Task, root: Path | None, jobs: int | None = None) -> TaskReport:
        """Check a task's split files and decode every image they list."""
        return verify_task(task, _base_of(root), jobs)


def _base_of(root: Path | None) -> Path:
    """Return the folder that holds the task folders; the error for one without names the SOURCE of other images."""
    try:
        return find_base(root)
    except IncompleteCopyError as error:
        source = source_of_path(str(root))
        raise IncompleteCopyError(f"{error}; for images of your own, name {source} as the task") from error


@contextmanager
def _advising_to_check(base: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}; {how_to_check(base)}") from error
