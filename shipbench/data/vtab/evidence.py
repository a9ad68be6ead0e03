"""The facts of a VTAB-1k task: its split files as written, and every listed image hashed and decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shipbench.data.images import decode, identify_bytes, read_bytes
from shipbench.data.inspection.evidence import Evidence, ImageFacts
from shipbench.data.parallel import map_items
from shipbench.data.scanning import scan_images
from shipbench.data.vtab.folder import ROLES, UNION, find_task, folders_of, with_union_divided
from shipbench.data.vtab.split_files import SplitFile, parse_split
from shipbench.tasks import Task

SPLIT_FILES: tuple[str, ...] = (*ROLES[:2], UNION, "test")


@dataclass(frozen=True)
class VtabEvidence(Evidence):
    """The facts of a VTAB-1k task.

    ``folder`` has its links resolved, ``folder_names`` are all names under which the copy has the task, the one that is
    read first; ``file_faults`` are sentences about listed images that do not exist.
    """

    folder: Path
    folder_names: tuple[str, ...]
    split_files: Mapping[str, SplitFile]
    file_faults: tuple[str, ...]

    def where(self, path: str) -> str:
        """Return the file of an image."""
        return str(self.folder / path)


def gather(task: Task, base: Path, jobs: int | None) -> VtabEvidence:
    """Read a task's split files and decode every image they list, in parallel.

    Faults are collected, not raised; ``InputError`` is raised only if ``base`` has no folder for the task.
    """
    folder = find_task(task, base)
    files = {name: folder / f"{name}.txt" for name in SPLIT_FILES}
    parsed = {name: parse_split(read_bytes(file), task.num_classes) for name, file in files.items() if file.is_file()}
    read = with_union_divided(task, {name: tuple(split.entries) for name, split in parsed.items()})
    splits = {name: read[name] for name in SPLIT_FILES if name in read}
    scan = scan_images(folder, {entry.path for entries in splits.values() for entry in entries})
    paths = sorted(scan.files)
    facts = map_items(lambda path: _read_facts(folder / path), paths, f"checking {task.name}", jobs)
    images = dict(zip(paths, facts, strict=True))
    return VtabEvidence(task, str(folder), splits, images, folder, tuple(folders_of(task, base)), parsed, scan.faults)


def _read_facts(file: Path) -> ImageFacts:
    data = read_bytes(file)
    return ImageFacts.of(identify_bytes(data), lambda: decode(data, file))
