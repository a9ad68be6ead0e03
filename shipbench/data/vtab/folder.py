"""The reader of VTAB-1k folders: where a task lies, what its split files say, which files they name.

``<root>/<task>/{train800,val200,train800val200,test}.txt`` beside ``images/``; a task folder may carry one of its other
names, and ``root`` may hold one more folder around the tasks. The 1000 training images are train800 followed by val200.
"""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from shipbench.data.images import decode
from shipbench.data.types import NativeSplit
from shipbench.data.vtab.split_files import Entry, read_bytes, read_split
from shipbench.errors import InputError, ShipbenchError
from shipbench.tasks.catalogue import VTAB, SplitName, Task

Role: TypeAlias = Literal["train800", "val200", "test"]

ROLES: tuple[Role, ...] = ("train800", "val200", "test")
UNION = "train800val200"

_MAX_DEPTH = 3
_TASK_FOLDERS = frozenset(name for task in VTAB.tasks for name in task.folder_names)


@dataclass(frozen=True)
class TaskSource:
    """A task's folder (links resolved) and the entries of train800 and val200, and of test if it was opened."""

    task: Task
    folder: Path
    roles: Mapping[Role, tuple[Entry, ...]]

    def entries(self, split: SplitName) -> tuple[Entry, ...]:
        """Return a split's entries; ``train`` is train800 followed by val200."""
        if split == "train":
            return (*self.roles["train800"], *self.roles["val200"])
        if split not in self.roles:
            raise ShipbenchError(f"{self.task.name} was opened without its {split!r} split")
        return self.roles[split]


@dataclass(frozen=True)
class Scan:
    """What the file system knows of the images that were asked for: those found, and what is wrong with the others."""

    found: Mapping[str, os.stat_result]
    faults: tuple[str, ...]


def find_base(root: Path | None) -> Path:
    """Return the folder that holds the task folders: ``root``, or the one below it (at most three levels down)."""
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
        f"{root} holds no VTAB-1k task: no folder is called {VTAB.tasks[0].name}, {VTAB.tasks[1].name}, ..."
    )


def task_folders(base: Path) -> list[str]:
    """Return the names of the folders in ``base`` that are called like a VTAB-1k task, sorted."""
    return sorted(child.name for child in _subfolders(base) if child.name in _TASK_FOLDERS)


def folders_of(task: Task, base: Path) -> list[str]:
    """Return the task's folder names that exist in ``base``, the canonical one first."""
    return [name for name in task.folder_names if (base / name).is_dir()]


def find_task(task: Task, base: Path) -> Path:
    """Return the task's folder in ``base``, links resolved; its canonical name is preferred to its other names."""
    names = folders_of(task, base)
    if names:
        return (base / names[0]).resolve()
    raise InputError(f"{base} has no folder for {task.name} ({' or '.join(task.folder_names)})")


def open_task(task: Task, root: Path | None, *, with_test: bool = True) -> TaskSource:
    """Read the split files of a task; raises ``InputError`` for anything that is missing, empty or malformed.

    A missing train800val200 is not needed. If only that one exists and has the full 1000 lines, its first 800 are
    train800 and its last 200 val200, as VTAB-1k defines it. Without ``with_test`` the file of the test split is not
    even looked at, and what is returned has no such split.
    """
    folder = find_task(task, find_base(root))
    roles = tuple(role for role in ROLES if with_test or role != "test")
    files = {name: folder / f"{name}.txt" for name in (*roles, UNION)}
    read = {name: read_split(file, task.num_classes) for name, file in files.items() if file.is_file()}
    if not {"train800", "val200"} & read.keys() and len(read.get(UNION, ())) == task.n_train == 1000:
        read |= {"train800": read[UNION][:800], "val200": read[UNION][800:]}
    for role in roles:
        if role not in read:
            raise InputError(f"{files[role]} is missing")
    _check_union(files[UNION], read)
    return TaskSource(task, folder, {role: read[role] for role in roles})


def expected_counts(task: Task) -> dict[str, int]:
    """Return the catalogue's number of images of every split, and of train800val200."""
    first = task.n_train * 4 // 5
    whole = dict.fromkeys(("train", UNION), task.n_train)
    return {"train800": first, "val200": task.n_train - first, **whole, "test": task.n_test}


def count_warning(task: Task, counts: Mapping[Any, int], root: Path) -> str:
    """Return a warning that names the splits of a copy in ``root`` whose numbers of images are not the catalogue's.

    An empty text if there are none.
    """
    expected = expected_counts(task)
    wrong = [f"{n} {name} images instead of {expected[name]}" for name, n in counts.items() if n != expected[name]]
    return f"warning: {task.name} has {', '.join(wrong)}; {how_to_check(root)}" if wrong else ""


def how_to_check(root: Path) -> str:
    """Name the command that tells what is wrong with the copy in ``root``."""
    return f"check the copy with: shipbench data verify {shlex.quote(str(root))}"


def label_disagreement(train: Iterable[Entry], union: Iterable[Entry]) -> int | None:
    """Return the first line (from 1) whose label differs between train800 + val200 and train800val200, if any."""
    ours, theirs = [entry.label for entry in train], [entry.label for entry in union]
    if ours == theirs:
        return None
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    return (min(len(ours), len(theirs)) if same is None else same) + 1


def scan_images(folder: Path, paths: Iterable[str]) -> Scan:
    """Look up image files, one directory listing per folder; a file must be regular and lie inside ``folder``.

    ``folder`` has its links resolved; ``paths`` are relative to it.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        parent, _, name = path.rpartition("/")
        wanted[parent].add(name)
    found: dict[str, os.stat_result] = {}
    faults: list[str] = []
    for parent, names in sorted(wanted.items()):
        scan = _scan_directory(folder, parent, names)
        found |= scan.found
        faults += scan.faults
    return Scan(found, tuple(faults))


def _subfolders(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if not child.name.startswith((".", "__MACOSX")))
    return sorted(child for child in children if child.is_dir())


def _check_union(file: Path, read: Mapping[str, tuple[Entry, ...]]) -> None:
    if UNION not in read:
        return
    line = label_disagreement((*read["train800"], *read["val200"]), read[UNION])
    if line is not None:
        raise InputError(
            f"{file} is not train800 followed by val200 (line {line}): this copy of VTAB-1k is inconsistent; "
            "get another, or remove the file to train on train800 and val200"
        )


def _scan_directory(folder: Path, parent: str, names: set[str]) -> Scan:
    directory = folder / parent
    if not directory.is_dir():
        return Scan({}, tuple(f"{directory}/{name} is missing" for name in sorted(names)))
    if not directory.resolve().is_relative_to(folder):
        return Scan({}, (f"{directory} is a link that leaves the task folder",))
    with os.scandir(directory) as listing:
        listed = {item.name: item for item in listing if item.name in names}
    faults = {name: _file_fault(listed.get(name), f"{directory}/{name}", folder) for name in sorted(names)}
    prefix = f"{parent}/" if parent else ""
    found = {prefix + name: item.stat() for name, item in listed.items() if faults[name] is None}
    return Scan(found, tuple(fault for fault in faults.values() if fault))


def _file_fault(item: os.DirEntry[str] | None, file: str, folder: Path) -> str | None:
    if item is None:
        return f"{file} is missing"
    # os.path.realpath and Path.is_file pass over a link that leads to itself, which resolve() and is_file() raise for.
    if item.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(folder):
        return f"{file} is a link that leaves the task folder"
    return None if Path(file).is_file() else f"{file} is not a regular file"


def vtab_split(source: TaskSource, name: SplitName) -> NativeSplit:
    """Return a split whose images are decoded when they are asked for."""
    files = [source.folder / entry.path for entry in source.entries(name)]
    labels = np.array([entry.label for entry in source.entries(name)], dtype=np.int64)
    return NativeSplit(labels, lambda index: decode(read_bytes(files[index]), files[index]))
