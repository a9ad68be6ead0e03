"""Everything that can be seen of a copy of one task: split files as written, and every image hashed and decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from shipbench.data.images import decode
from shipbench.data.parallel import stream
from shipbench.data.vtab.fingerprints import FileIdentity, identify_bytes
from shipbench.data.vtab.folder import ROLES, UNION, find_task, folders_of, scan_images
from shipbench.data.vtab.split_files import Entry, SplitFile, parse_split, read_bytes
from shipbench.errors import InputError
from shipbench.tasks import Task

Size: TypeAlias = tuple[int, int]
SPLIT_FILES: tuple[str, ...] = (*ROLES[:2], UNION, "test")


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image file as read: its identity, width and height in pixels, or why it cannot be decoded."""

    identity: FileIdentity
    size: Size | None
    fault: str | None


@dataclass(frozen=True)
class Evidence:
    """What was found of a task.

    Its folder (links resolved) and the names it has in the copy, its split files by name, its images by path, and what
    is wrong with those that are not there.
    """

    task: Task
    folder: Path
    folder_names: tuple[str, ...]
    splits: Mapping[str, SplitFile]
    images: Mapping[str, ImageFacts]
    file_faults: tuple[str, ...]

    def entries(self, *names: str) -> tuple[Entry, ...]:
        """Return the good lines of split files, one after the other; a missing file has none."""
        return tuple(entry for name in names if name in self.splits for entry in self.splits[name].entries)


def gather(task: Task, base: Path, jobs: int | None) -> Evidence:
    """Read a task's split files and decode every image they name, in parallel.

    Faults are collected, not raised; only a task without a folder in ``base`` is an ``InputError``.
    """
    folder = find_task(task, base)
    files = {name: folder / f"{name}.txt" for name in SPLIT_FILES}
    splits = {name: parse_split(read_bytes(file), task.num_classes) for name, file in files.items() if file.is_file()}
    scan = scan_images(folder, {entry.path for split in splits.values() for entry in split.entries})
    paths = sorted(scan.found)

    def work(start: int, stop: int) -> list[ImageFacts]:
        return [_look_at(folder / path) for path in paths[start:stop]]

    facts = stream(work, len(paths), f"checking {task.name}", jobs)
    images = dict(zip(paths, facts, strict=True))
    return Evidence(task, folder, tuple(folders_of(task, base)), splits, images, scan.faults)


def _look_at(file: Path) -> ImageFacts:
    data = read_bytes(file)
    try:
        return ImageFacts(identify_bytes(data), decode(data, file).size, None)
    except InputError as error:
        return ImageFacts(identify_bytes(data), None, str(error))
