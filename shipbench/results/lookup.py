"""Find runs of a results folder by id, without reading a record."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from shipbench.errors import InputError, did_you_mean

_MOST_CANDIDATES = 10
Folders: TypeAlias = "Path | str | Sequence[Path | str]"
"""A results folder, or several that are read as one."""


def folder_list(results: Folders) -> list[Path]:
    """Return the folders, each once; raise ``InputError`` for anything else."""
    folders = [results] if isinstance(results, (str, Path)) else results
    if not isinstance(folders, Iterable):
        raise InputError(f"results is {results!r}; give a folder, or a list of folders")
    return list(dict.fromkeys(map(Path, folders)))


def run_ids(results: Path | str) -> list[str]:
    """Return the ids of all recorded runs, sorted; an empty list if the folder does not exist."""
    return [path.stem for path in visible_files(Path(results) / "runs", ".parquet")]


def visible_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a folder that have a suffix, sorted by their stems; an empty list if there is no folder.

    Hidden ones are left out: other systems keep metadata of a file beside it, as ``._NAME``.
    """
    files = (path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))
    return sorted(files, key=lambda path: path.stem)


def find_run(results: Path | str, prefix: str) -> str:
    """Return the id of the only run whose id starts with ``prefix``; an exact match takes precedence.

    Raises ``InputError`` if no run matches, or several do; the message then lists the candidates.
    """
    ids = run_ids(results)
    candidates = [prefix] if prefix in ids else [run_id for run_id in ids if run_id.startswith(prefix)]
    if not candidates:
        raise InputError(
            f"there is no run {prefix!r} in {results}{did_you_mean(prefix, ids)}; see: {list_runs_command(results)}"
        )
    if len(candidates) > 1:
        raise InputError(f"{prefix!r} matches several runs in {results}: {_listed(candidates)}; give more characters")
    return candidates[0]


def list_runs_command(results: Path | str) -> str:
    """Return the command that lists the runs of a results folder."""
    return f"shipbench list runs --results {shlex.quote(str(results))}"


def _listed(ids: list[str]) -> str:
    rest = len(ids) - _MOST_CANDIDATES
    return ", ".join([*ids[:_MOST_CANDIDATES], *([f"{rest} more"] if rest > 0 else [])])
