"""Hints for an import that finds less than the user expects: parts of a download, archives inside archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shipbench.counts import named_few
from shipbench.data.acquisition.archives import is_archive
from shipbench.data.vtab.folder import levels, misnamed_folders


def hint_at_parts(sources: Sequence[Path], staged: Path) -> str:
    """Return a clause for sources in which files are missing, whose tasks are in ``staged``; it may be empty."""
    if inside := _archives_in(staged):
        return f"; unpack the archives inside first: {named_few(inside)}"
    if all(source.is_dir() for source in sources):
        return ""
    if len(sources) > 1:
        return "; another part of the download may be missing"
    return "; parts of the download may be missing: name all of them, as in 'shipbench data import A.zip B.zip'"


def hint_at_archives(content: Path, *, packed: bool) -> str:
    """Return a clause that names the archives inside a folder, or a ``packed`` one; it is empty if there are none."""
    inside = _archives_in(content)
    return f"; {'unpack it and ' if packed else ''}import the archives inside: {named_few(inside)}" if inside else ""


def remarks_on_rest(base: Path) -> list[str]:
    """Return remarks on what an import of the tasks in ``base`` leaves there: misnamed folders and archives."""
    remarks = [
        f"note: {folder} was not imported; if it is the task {task.name}, rename it to {task.name} and import it"
        for folder, task in misnamed_folders(base).items()
    ]
    if inside := _archives_in(base):
        remarks.append(f"note: archives inside {base} were not imported: {named_few(inside)}")
    return remarks


def _archives_in(folder: Path) -> list[str]:
    """Return the paths, relative to ``folder``, of archives in it and at most three folders below it."""
    parents = [parent for level in levels(folder) for parent in level]
    files = [file for parent in parents for file in sorted(parent.iterdir()) if is_archive(file.name)]
    return [str(file.relative_to(folder)) for file in files if file.is_file()]
