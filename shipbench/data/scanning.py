"""Which of the images that a task lists exist, and what is wrong with the others.

Links are followed wherever they lead, because the folder is the user's own.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scan:
    """The status of every listed image that exists, by path, and one sentence about every other."""

    files: Mapping[str, os.stat_result]
    faults: tuple[str, ...]


def scan_images(folder: Path, paths: Iterable[str]) -> Scan:
    """Look up images with one directory listing per folder; each must be a regular file or a link to one.

    ``folder`` has its links resolved; ``paths`` are relative to it.
    """
    names_by_parent: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        parent, _, name = path.rpartition("/")
        names_by_parent[parent].add(name)
    files: dict[str, os.stat_result] = {}
    faults: list[str] = []
    for parent, names in sorted(names_by_parent.items()):
        scan = _scan_directory(folder, parent, names)
        files |= scan.files
        faults += scan.faults
    # All images behind one broken link have the same fault.
    return Scan(files, tuple(dict.fromkeys(faults)))


def absence(file: Path) -> str:
    """Return one sentence that says why ``file``, which should be a regular file, is none."""
    broken = next((place for place in (*reversed(file.parents), file) if _is_broken_link(place)), None)
    if broken is not None:
        link = f"{broken} is a link to {broken.readlink()}, which does not exist"
        return f"{link}; restore the target or replace the link with what it stood for"
    if not os.path.lexists(file):
        return f"{file} is missing"
    return f"{file} is not a regular file{' but a folder' if file.is_dir() else ''}"


def _scan_directory(folder: Path, parent: str, names: set[str]) -> Scan:
    directory = folder / parent
    if not directory.is_dir():
        return Scan({}, tuple(absence(directory / name) for name in sorted(names)))
    with os.scandir(directory) as listing:
        listed = {item.name: item for item in listing if item.name in names}
    # Path.is_file accepts a link to itself; DirEntry.is_file raises. Macs and Windows find a file by another
    # spelling of its name than that of the listing: in other case, or with an accented letter in one character for two.
    faults = {name: None if (directory / name).is_file() else absence(directory / name) for name in sorted(names)}
    prefix = f"{parent}/" if parent else ""
    found = (name for name, fault in faults.items() if fault is None)
    files = {prefix + name: listed.get(name, directory / name).stat() for name in found}
    return Scan(files, tuple(fault for fault in faults.values() if fault))


def _is_broken_link(place: Path) -> bool:
    return place.is_symlink() and not place.exists()
