"""VTAB-1k folders: where a task is, what its split files list, and which of the listed images exist.

A task is ``<root>/<task>/{train800,val200,train800val200,test}.txt`` beside ``images/``. Its folder may have one of the
task's other names, and ``root`` may be up to three levels above the task folders. The 1000 training images are train800
followed by val200.
"""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from shipbench.data.types import Entry
from shipbench.data.vtab.split_files import read_split
from shipbench.errors import InputError, ShipbenchError
from shipbench.tasks.catalogue import VTAB, SplitName, Task

Role: TypeAlias = Literal["train800", "val200", "test"]

ROLES: tuple[Role, ...] = ("train800", "val200", "test")
"""The splits with a file of their own; ``train`` is the first two."""
UNION = "train800val200"

_MAX_DEPTH = 3
_TASK_FOLDERS = frozenset(name for task in VTAB.tasks for name in task.folder_names)


@dataclass(frozen=True)
class TaskFolder:
    """A task's folder, links resolved, and the entries of train800, val200 and, if it was opened, test."""

    task: Task
    path: Path
    entries: Mapping[Role, tuple[Entry, ...]]

    def split(self, name: SplitName) -> tuple[Entry, ...]:
        """Return the entries of a split; ``train`` is train800 followed by val200."""
        if name == "train":
            return (*self.entries["train800"], *self.entries["val200"])
        if name not in self.entries:
            raise ShipbenchError(f"{self.task.name} was opened without its {name!r} split")
        return self.entries[name]


@dataclass(frozen=True)
class Scan:
    """The status of every listed image that exists, by path, and one sentence about every other."""

    files: Mapping[str, os.stat_result]
    faults: tuple[str, ...]


def find_base(root: Path | None) -> Path:
    """Return the folder that holds the task folders: ``root``, or a folder at most three levels below it."""
    if root is None:
        raise InputError(
            "VTAB-1k tasks are read from a folder; pass --data DIR or set SHIPBENCH_DATA "
            "('shipbench data fetch' downloads a copy)"
        )
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; name the folder that holds the VTAB-1k tasks")
    level = [root]
    for _ in range(_MAX_DEPTH + 1):
        bases = [folder for folder in level if task_folders(folder)]
        if len(bases) > 1:
            raise InputError(f"{root} holds several copies of VTAB-1k ({bases[0]}, {bases[1]}); name one of them")
        if bases:
            return bases[0]
        level = [child for folder in level for child in _subfolders(folder)]
    raise InputError(
        f"{root} holds no VTAB-1k task; name a folder with subfolders called {VTAB.tasks[0].name}, "
        f"{VTAB.tasks[1].name}, ..."
    )


def task_folders(base: Path) -> list[str]:
    """Return the sorted names of the folders in ``base`` that are named after a VTAB-1k task."""
    return sorted(child.name for child in _subfolders(base) if child.name in _TASK_FOLDERS)


def folders_of(task: Task, base: Path) -> list[str]:
    """Return the names under which ``base`` has a folder of the task, the canonical name first."""
    return [name for name in task.folder_names if (base / name).is_dir()]


def find_task(task: Task, base: Path) -> Path:
    """Return the task's folder in ``base``, links resolved; the canonical name takes precedence."""
    names = folders_of(task, base)
    if names:
        return (base / names[0]).resolve()
    raise InputError(f"{base} has no folder called {' or '.join(task.folder_names)}")


def open_task(task: Task, base: Path, *, with_test: bool = True) -> TaskFolder:
    """Read the split files of a task in ``base``; raise ``InputError`` if one is missing, empty or malformed.

    train800val200 is optional. If it is the only training file and has the full 1000 lines, the first 800 are train800
    and the last 200 val200, as VTAB-1k defines them. Without ``with_test`` the file of the test split is not opened and
    the result has no such split.
    """
    folder = find_task(task, base)
    roles = tuple(role for role in ROLES if with_test or role != "test")
    files = {name: folder / f"{name}.txt" for name in (*roles, UNION)}
    entries = {name: read_split(file, task.num_classes) for name, file in files.items() if file.is_file()}
    if not {"train800", "val200"} & entries.keys() and len(entries.get(UNION, ())) == task.n_train == 1000:
        entries |= {"train800": entries[UNION][:800], "val200": entries[UNION][800:]}
    for role in roles:
        if role not in entries:
            raise InputError(f"{files[role]} is missing")
    _check_union(files[UNION], entries)
    return TaskFolder(task, folder, {role: entries[role] for role in roles})


def count_warning(task: Task, counts: Mapping[Any, int], root: Path) -> str:
    """Return a warning that names the splits whose number of images differs from the catalogue's, else an empty string.

    The warning ends with the command that checks the copy in ``root``.
    """
    expected = task.counts
    wrong = [f"{n} {name} images instead of {expected[name]}" for name, n in counts.items() if n != expected[name]]
    return f"warning: {task.name} has {', '.join(wrong)}; {how_to_check(root)}" if wrong else ""


def how_to_check(root: Path) -> str:
    """Return the advice to verify the copy in ``root``, with the command."""
    return f"check the copy with: shipbench data verify {shlex.quote(str(root))}"


def label_disagreement(train: Iterable[Entry], union: Iterable[Entry]) -> int | None:
    """Return the first line, counted from 1, whose label differs between train and union; ``None`` if they agree.

    If one is the beginning of the other, the first line that only the longer one has counts as different.
    """
    labels, union_labels = [entry.label for entry in train], [entry.label for entry in union]
    if labels == union_labels:
        return None
    pairs = enumerate(zip(labels, union_labels, strict=False), start=1)
    return next((line for line, (a, b) in pairs if a != b), min(len(labels), len(union_labels)) + 1)


def scan_images(folder: Path, paths: Iterable[str]) -> Scan:
    """Look up images with one directory listing per folder; each must be a regular file inside ``folder``.

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
    return Scan(files, tuple(faults))


def _subfolders(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if not child.name.startswith((".", "__MACOSX")))
    return sorted(child for child in children if child.is_dir())


def _check_union(file: Path, entries: Mapping[str, tuple[Entry, ...]]) -> None:
    if UNION not in entries:
        return
    line = label_disagreement((*entries["train800"], *entries["val200"]), entries[UNION])
    if line is not None:
        raise InputError(
            f"{file} is not train800 followed by val200 (line {line}), so this copy of VTAB-1k contradicts itself; "
            "get another copy, or remove the file to train on train800 and val200"
        )


def _scan_directory(folder: Path, parent: str, names: set[str]) -> Scan:
    directory = folder / parent
    if not directory.is_dir():
        return Scan({}, tuple(f"{directory}/{name} is missing" for name in sorted(names)))
    if not directory.resolve().is_relative_to(folder):
        return Scan({}, (f"{directory} is a link that leaves the task folder; copy its images into the task folder",))
    with os.scandir(directory) as listing:
        listed = {item.name: item for item in listing if item.name in names}
    faults = {name: _file_fault(listed.get(name), f"{directory}/{name}", folder) for name in sorted(names)}
    prefix = f"{parent}/" if parent else ""
    files = {prefix + name: item.stat() for name, item in listed.items() if faults[name] is None}
    return Scan(files, tuple(fault for fault in faults.values() if fault))


def _file_fault(item: os.DirEntry[str] | None, file: str, folder: Path) -> str | None:
    if item is None:
        return f"{file} is missing"
    # os.path.realpath and Path.is_file accept a link to itself; Path.resolve and DirEntry.is_file raise.
    if item.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(folder):
        return f"{file} is a link that leaves the task folder; replace it with the file"
    return None if Path(file).is_file() else f"{file} is not a regular file"
