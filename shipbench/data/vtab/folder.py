"""VTAB-1k folders: where a task is, and what its split files list.

A task is ``<root>/<task>/{train800,val200,train800val200,test}.txt`` beside ``images/``. Its folder may have one of the
task's other names, and ``root`` may be up to three levels above the task folders. The 1000 training images are train800
followed by val200. Links are followed wherever they lead, because the folder is the user's own.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from shipbench.counts import counted
from shipbench.data.scanning import absence
from shipbench.data.types import Entry
from shipbench.data.vtab.distinctness import listed_paths
from shipbench.data.vtab.split_files import read_split
from shipbench.errors import InputError, ShipbenchError
from shipbench.tasks.catalogue import VTAB, SplitName, Task
from shipbench.tasks.own import source_of_path
from shipbench.tasks.registry import likely_vtab_task

Role: TypeAlias = Literal["train800", "val200", "test"]

ROLES: tuple[Role, ...] = ("train800", "val200", "test")
"""The splits with a file of their own; ``train`` is the first two."""
UNION = "train800val200"

_MAX_DEPTH = 3
_LISTED = 3
_TASK_FOLDERS = frozenset(name for task in VTAB.tasks for name in task.folder_names)


class IncompleteCopyError(InputError):
    """A copy lacks an image, a split file or all tasks."""


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


def find_base(root: Path | None) -> Path:
    """Return the folder that holds the task folders: ``root``, or a folder at most three levels below it."""
    if root is None:
        raise InputError(
            "VTAB-1k tasks are read from a folder; pass --data DIR or set SHIPBENCH_DATA "
            "('shipbench data fetch' downloads a copy)"
        )
    if not root.is_dir():
        nature = f" but a file ({_use_of(root)})" if root.is_file() else ": it does not exist"
        raise InputError(f"{root} is not a folder{nature}; name the folder that holds the VTAB-1k tasks")
    for level in levels(root):
        # By resolved path, because a link beside the copy that it leads to is the same copy.
        distinct: dict[Path, Path] = {}
        for folder in filter(task_folders, level):
            distinct.setdefault(folder.resolve(), folder)
        bases = list(distinct.values())
        if len(bases) > 1:
            raise InputError(f"{root} holds several copies of VTAB-1k ({bases[0]}, {bases[1]}); name one of them")
        if bases:
            return bases[0]
    suspects = [pair for level in levels(root) for folder in level for pair in misnamed_folders(folder).items()]
    raise IncompleteCopyError(
        f"{root} holds no VTAB-1k task; name a folder with subfolders called {VTAB.tasks[0].name}, "
        f"{VTAB.tasks[1].name}, ...{_advice(suspects)}"
    )


def _use_of(file: Path) -> str:
    source = source_of_path(str(file))
    return f"for images of your own, name {source} as the task" if source else "shipbench data import unpacks archives"


def levels(root: Path) -> Iterator[list[Path]]:
    """Yield the folders at each depth below ``root``, from ``root`` itself to three levels below it."""
    level = [root]
    for _ in range(_MAX_DEPTH + 1):
        yield level
        level = [child for folder in level for child in _subfolders(folder)]


def task_folders(base: Path) -> list[str]:
    """Return the sorted names of the folders in ``base`` that are named after a VTAB-1k task."""
    return sorted(child.name for child in _subfolders(base) if child.name in _TASK_FOLDERS)


def folders_of(task: Task, base: Path) -> list[str]:
    """Return the names under which ``base`` has a folder of the task, the canonical name first."""
    return [name for name in task.folder_names if (base / name).is_dir()]


def missing_tasks(base: Path) -> list[str]:
    """Return the names of the tasks of VTAB-1k that have no folder in ``base``."""
    return [task.name for task in VTAB.tasks if not folders_of(task, base)]


def misnamed_folders(base: Path) -> dict[Path, Task]:
    """Return the folders in ``base`` that are not named after a task but after something like it, with that task."""
    likely = {child: likely_vtab_task(child.name) for child in _subfolders(base) if child.name not in _TASK_FOLDERS}
    return {child: task for child, task in likely.items() if task is not None}


def find_task(task: Task, base: Path) -> Path:
    """Return the task's folder in ``base``, links resolved; the canonical name takes precedence."""
    names = folders_of(task, base)
    if names:
        return (base / names[0]).resolve()
    suspects = _advice([pair for pair in misnamed_folders(base).items() if pair[1] == task])
    absent = f"{base} has no folder called {' or '.join(task.folder_names)}"
    raise InputError(f"{absent}{suspects or '; import the task or leave it out'}")


def open_task(task: Task, base: Path, *, with_test: bool = True) -> TaskFolder:
    """Read the split files of a task in ``base``.

    train800val200 is optional. If it is the only training file and has the full 1000 lines, the first 800 are train800
    and the last 200 val200, as VTAB-1k defines them. Without ``with_test`` the file of the test split is not opened and
    the result has no such split. Raises ``InputError`` if a file is missing, empty or malformed, or if an image has two
    labels.
    """
    folder = find_task(task, base)
    roles = tuple(role for role in ROLES if with_test or role != "test")
    files = {name: folder / f"{name}.txt" for name in (*roles, UNION)}
    entries = with_union_divided(task, _read_splits(files, task.num_classes))
    for role in roles:
        if role not in entries:
            raise IncompleteCopyError(absence(files[role]))
    _check_union(files[UNION], entries)
    _check_labels(folder, entries)
    return TaskFolder(task, folder, {role: entries[role] for role in roles})


def with_union_divided(task: Task, entries: Mapping[str, tuple[Entry, ...]]) -> dict[str, tuple[Entry, ...]]:
    """Return the entries of split files; train800val200, if it is the only training file, gives train800 and val200."""
    union = entries.get(UNION, ())
    if {"train800", "val200"} & entries.keys() or not len(union) == task.n_train == 1000:
        return dict(entries)
    return {**entries, "train800": union[:800], "val200": union[800:]}


def doubts_about(folder: TaskFolder, counts: Mapping[Any, int], root: Path) -> str:
    """Return a warning about numbers of images that differ from the catalogue's and images that are listed repeatedly.

    ``counts`` are the numbers to compare, by split. The warning ends with the command that checks the copy in ``root``;
    it is an empty string if there is nothing to warn about.
    """
    expected = folder.task.counts
    wrong = [
        f"{counted(n, f'{name} image')} instead of {expected[name]}"
        for name, n in counts.items()
        if n != expected[name]
    ]
    repeated = sum(path.repeated for path in listed_paths(folder.entries))
    if repeated:
        wrong.append(f"{counted(repeated, 'image')} that the split files list more than once")
    return f"warning: {folder.task.name} has {', '.join(wrong)}; {how_to_check(root)}" if wrong else ""


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


def _subfolders(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if not child.name.startswith((".", "__MACOSX")))
    return sorted(child for child in children if child.is_dir())


def _advice(suspects: list[tuple[Path, Task]]) -> str:
    clauses = [
        f"; if {folder} is the task {task.name}, rename it to {task.name}" for folder, task in suspects[:_LISTED]
    ]
    more = [f"; and {len(suspects) - _LISTED} more such folders"] if len(suspects) > _LISTED else []
    return "".join(clauses + more)


def _read_splits(files: Mapping[str, Path], num_classes: int) -> dict[str, tuple[Entry, ...]]:
    entries: dict[str, tuple[Entry, ...]] = {}
    for name, file in files.items():
        if file.is_file():
            entries[name] = read_split(file, num_classes)
        elif os.path.lexists(file):
            raise IncompleteCopyError(absence(file))
    return entries


def _check_union(file: Path, entries: Mapping[str, tuple[Entry, ...]]) -> None:
    if UNION not in entries:
        return
    line = label_disagreement((*entries["train800"], *entries["val200"]), entries[UNION])
    if line is not None:
        raise InputError(
            f"{file} is not train800 followed by val200 (line {line}), so this copy of VTAB-1k contradicts itself; "
            "get another copy, or remove the file to train on train800 and val200"
        )


def _check_labels(folder: Path, entries: Mapping[str, tuple[Entry, ...]]) -> None:
    contradictory = [path for path in listed_paths(entries) if len(path.labels) > 1]
    if contradictory:
        count = len(contradictory)
        images = "1 image has" if count == 1 else f"{count} images have"
        raise InputError(
            f"{images} more than one label in the split files of {folder}, such as {contradictory[0]}; get another copy"
        )
