"""Tasks outside the catalogue: a bare SOURCE such as ``folder:/data/bugs``."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from shipbench.errors import InputError
from shipbench.runtime.files import expanded
from shipbench.tasks.catalogue import Task

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
    name = _last_part(kind, location, base)
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


def _last_part(kind: str, location: str, base: Path) -> str:
    if kind == "torchvision":
        # A whole CIFAR-100 is not the task cifar100 of VTAB-1k.
        return f"tv-{location.lower()}"
    if kind in ("csv", "folder") and not (base / expanded(location)).exists():
        # The part after the colon is the folder that the images lie in.
        name = location.rpartition(":")[0]
        location = name if len(name) > 1 else location
    path = (base / expanded(location)).absolute()
    is_local = kind in ("csv", "folder", "npz") or path.exists()
    # normpath takes the last part of "." and "bugs/" as well.
    *folders, name = ("", *Path(os.path.normpath(path)).parts[1:])
    name = next((name[: -len(end)] for end in _SUFFIXES.get(kind, ()) if name.lower().endswith(end)), name)
    split = f"-{name}" if is_local and name.lower() in _SPLITS else ""
    while is_local and name.lower() in _COMMON:
        name = folders.pop()
    return re.sub(r"[\s:,]+", "-", name + split) or kind
