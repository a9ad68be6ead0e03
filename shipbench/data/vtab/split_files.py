"""The split files of VTAB-1k: lines of ``images/test/000123.jpg 7``, a path in the task folder and a label.

The label is the last token because paths may contain spaces. Windows line endings, a byte-order mark, blank lines and
backslashes between folders are accepted; a path that could leave the task folder is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from shipbench.data.images import read_bytes
from shipbench.data.types import Entry
from shipbench.errors import InputError
from shipbench.runtime.file_kinds import impostor

_LINE = re.compile(r"(.*[^ \t])[ \t]+([^ \t]+)", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f]")
_LABEL = re.compile(r"[0-9]{1,9}")
# Messages quote at most this many characters, so that they stay one sentence whatever the file contains.
_QUOTED = 120


@dataclass(frozen=True)
class Fault:
    """A fault of one line, counted from 1; line 0 stands for the whole file."""

    line: int
    message: str


@dataclass(frozen=True)
class SplitFile:
    """A parsed split file: its valid lines in order, its faults, and whether it has Windows line endings."""

    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]
    windows_line_endings: bool


def parse_split(content: bytes, num_classes: int) -> SplitFile:
    """Parse the bytes of a split file; labels must lie in ``[0, num_classes)``. Faults are collected, not raised."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return SplitFile((), (Fault(0, "is not UTF-8 text; save it as UTF-8"),), False)
    if text and (clause := impostor(content, "write lines of a path and a label")):
        return SplitFile((), (Fault(0, clause),), False)
    lines = [(number, line.strip(" \t\r")) for number, line in enumerate(text.split("\n"), start=1)]
    parsed = [_parse_line(number, line, num_classes) for number, line in lines if line]
    faults = [item for item in parsed if isinstance(item, Fault)] if parsed else [Fault(0, "is empty")]
    entries = tuple(item for item in parsed if isinstance(item, Entry))
    return SplitFile(entries, tuple(faults), "\r\n" in text)


def read_split(file: Path, num_classes: int) -> tuple[Entry, ...]:
    """Read a split file; raise ``InputError`` for its first fault."""
    split = parse_split(read_bytes(file), num_classes)
    if split.faults:
        raise InputError(describe_fault(file, split.faults[0]))
    return split.entries


def describe_fault(file: Path, fault: Fault) -> str:
    """Return one sentence that says where a fault is and what is wrong."""
    return f"{file}, line {fault.line}: {fault.message}" if fault.line else f"{file} {fault.message}"


def _parse_line(number: int, line: str, num_classes: int) -> Entry | Fault:
    match = _LINE.fullmatch(line)
    if match is None:
        return Fault(number, f"expected 'path label', found {_quoted(line)}")
    path, label = match[1].replace("\\", "/"), match[2]
    if message := _path_fault(path) or _label_fault(label, num_classes):
        return Fault(number, message)
    return Entry("/".join(part for part in path.split("/") if part not in ("", ".")), int(label))


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}...")


def _path_fault(path: str) -> str | None:
    parts = path.split("/")
    if path.startswith("/") or _DRIVE.match(path):
        return f"the path {_quoted(path)} is absolute; write it relative to the task folder"
    if ".." in parts:
        return f"the path {_quoted(path)} leaves the task folder"
    if _CONTROL.search(path) or not set(parts) - {"", "."}:
        return f"the path {_quoted(path)} is not a file name"
    return None


def _label_fault(label: str, num_classes: int) -> str | None:
    if not _LABEL.fullmatch(label):
        return f"the label {_quoted(label)} is not an integer from 0 to {num_classes - 1}"
    if int(label) >= num_classes:
        return f"the label {label} is out of range; the labels of this task are 0 to {num_classes - 1}"
    return None
