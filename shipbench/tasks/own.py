"""Tasks outside the catalogue: a bare SOURCE such as ``folder:/data/bugs``."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import replace
from itertools import count
from pathlib import Path

from shipbench.errors import InputError
from shipbench.runtime.files import expanded
from shipbench.tasks.catalogue import Task, is_catalogued

# A letter and a colon begin a path on Windows.
_SOURCE = re.compile(r"([A-Za-z][A-Za-z0-9_-]+):(.*)", re.DOTALL)
_GROUP = "Own"
# The suffixes of the files that a kind of source reads, which are no part of a task's name.
_SUFFIXES = {"csv": (".csv", ".tsv", ".txt"), "npz": (".npz",), "hf": (".parquet",)}
# Names that tables and folders of many data sets have.
_SPLITS = ("val", "valid", "validation", "test", "testing")
_COMMON = (*_SPLITS, "train", "training", "labels", "annotations", "metadata")


def is_source(text: str) -> bool:
    """Return whether ``text`` is a SOURCE: the name of a kind of source, a colon and a location."""
    return _SOURCE.fullmatch(text) is not None


def task_of_source(text: str, base: Path) -> Task:
    """Return the task of a SOURCE, in a suite of the same name that has no other.

    A relative location starts from ``base``. Raises ``InputError`` if the location is empty.
    """
    kind, location = split_source(text)
    name = _name_of(kind, location, base)
    task = Task(name, _GROUP, name, 0, 0, 0, kind, text, location=location, base=str(base.absolute()))
    return renamed(task, name)


def split_source(text: str) -> tuple[str, str]:
    """Return the kind of source and the location of a SOURCE; raise ``InputError`` for other text."""
    match = _SOURCE.fullmatch(text)
    if match is None or not match[2].strip():
        raise InputError(f"{text!r} is not a source; write one as in folder:PATH or csv:PATH")
    return match[1], match[2].strip()


def renamed(task: Task, name: str) -> Task:
    """Return the task of a bare SOURCE under another name, which is also that of its suite."""
    return replace(task, name=name, suite=name, suite_tasks=(name,))


def free_name(name: str, taken: Collection[str]) -> str:
    """Return a name, with a number where the catalogue or ``taken`` has it."""
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(name for name in names if not (name in taken or is_catalogued(name)))


def without_number(name: str) -> str:
    """Return a name without the number that ``free_name`` gives it."""
    return re.sub(r"-\d+$", "", name)


def names_in_records(task: Task) -> set[str]:
    """Return the names that records may have for the images of a task.

    They are its name and, if that follows from its location, also the last part of the location, with and without
    suffix.
    """
    base = Path(task.base)
    default = _name_of(task.source, task.location, base)
    if task.named or default not in (task.name, without_number(task.name)):
        return {task.name}
    last = _path_of(task.source, task.location, base).name
    return {task.name, default, _spelled(last), _spelled(_without_suffix(task.source, last))}


def source_of_path(text: str) -> str:
    """Return the SOURCE that reads an existing folder, table or file of arrays; empty for any other text."""
    path = expanded(text)
    try:
        kinds = [kind for kind, suffixes in _SUFFIXES.items() if path.suffix.lower() in suffixes and path.is_file()]
        kinds += ["folder"] if path.is_dir() else []
    except (OSError, ValueError):
        # The text cannot be a path.
        kinds = []
    return f"{kinds[0]}:{text}" if text and kinds else ""


def _name_of(kind: str, location: str, base: Path) -> str:
    if kind == "torchvision":
        # A whole CIFAR-100 is not the task cifar100 of VTAB-1k.
        return f"tv-{location.lower()}"
    path = _path_of(kind, location, base)
    is_local = kind in ("csv", "folder", "npz") or path.exists()
    *folders, name = ("", *path.parts[1:])
    name = _without_suffix(kind, name)
    passed: list[str] = []
    while is_local and name.lower() in _COMMON:
        passed.append(name)
        name = folders.pop()
    split = next((f"-{part}" for part in passed if part.lower() in _SPLITS), "")
    return _spelled(name or kind) + split


def _path_of(kind: str, location: str, base: Path) -> Path:
    if kind in ("csv", "folder") and not (base / expanded(location)).exists():
        # The part after the colon is the folder that the images lie in.
        name = location.rpartition(":")[0]
        location = name if len(name) > 1 else location
    # normpath takes the last part of "." and "bugs/" as well.
    return Path(os.path.normpath((base / expanded(location)).absolute()))


def _without_suffix(kind: str, name: str) -> str:
    return next((name[: -len(end)] for end in _SUFFIXES.get(kind, ()) if name.lower().endswith(end)), name)


def _spelled(name: str) -> str:
    """Return a name that can be one of several in a list."""
    return re.sub(r"[\s:,]+", "-", name)
