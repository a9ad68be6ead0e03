"""Import a copy of VTAB-1k: unpack it on the disk of the target, check it, then rename it into place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shipbench.data.acquisition.archives import LIMITS, Limits, unpack
from shipbench.data.acquisition.hints import hint_at_archives, hint_at_parts, remarks_on_rest
from shipbench.data.scanning import scan_images
from shipbench.data.vtab.folder import (
    IncompleteCopyError,
    doubts_about,
    find_base,
    find_task,
    folders_of,
    open_task,
)
from shipbench.errors import InputError
from shipbench.runtime.console import say
from shipbench.runtime.interrupts import settled
from shipbench.tasks.catalogue import VTAB, Task


def import_archives(sources: Sequence[Path], target: Path, *, limits: Limits = LIMITS) -> list[str]:
    """Import a copy of VTAB-1k (folders, zip or tar files) into the folder ``target``; return the names of its tasks.

    A task may be spread over several sources. The task folders may be up to three folders deep and get their canonical
    names. Nothing appears in ``target`` unless all tasks of the copy are readable; numbers of images that differ from
    the catalogue's are warned about. Raises ``InputError`` if a source is missing, damaged or hostile, if it holds no
    task, and if ``target`` already has one of its tasks.
    """
    check_absent([], target)
    with ExitStack() as last_step:
        with temporary_folder(target) as workspace:
            staged = workspace / "staged"
            staged.mkdir()
            remarks: list[str] = []
            for number, source in enumerate(sources):
                remarks += _stage(source, workspace / str(number), staged, target, limits)
            remarks += _check_staged(sources, staged, target)
            last_step.enter_context(settled())
            placed = place(_tasks_in(staged), staged, target)
        for remark in remarks:
            say(remark)
    return placed


def check_absent(tasks: Sequence[Task], target: Path) -> None:
    """Raise ``InputError`` if ``target`` is not a folder or already has one for a task of ``tasks``."""
    if os.path.lexists(target) and not target.is_dir():
        raise InputError(f"{target} is not a folder; import into a folder or to a path that does not exist yet")
    for task in tasks:
        for name in folders_of(task, target):
            raise InputError(f"{target / name} already exists; remove it or import into another folder")


def _stage(source: Path, unpacked: Path, staged: Path, target: Path, limits: Limits) -> list[str]:
    """Move a source's tasks into ``staged``; return remarks on what else the source holds."""
    if not source.exists():
        raise InputError(f"{source} does not exist; name an archive or a folder that holds VTAB-1k")
    unpacked.mkdir()
    packed = not source.is_dir()
    try:
        _unpack(source, unpacked, target, limits)
        base = find_base(unpacked)
        for task in _tasks_in(base):
            _merge(find_task(task, base), staged / task.name, source)
    except InputError as error:
        content = unpacked if packed else source
        hint = hint_at_archives(content, packed=packed) if isinstance(error, IncompleteCopyError) else ""
        # The user knows the source, not the temporary folder.
        message = f"{error}{hint}".replace(str(unpacked), str(source))
        raise InputError(f"{message}; nothing was imported") from error
    rest = base if packed else find_base(source)
    return [remark.replace(str(unpacked), str(source)) for remark in remarks_on_rest(rest)]


def _merge(folder: Path, place: Path, source: Path) -> None:
    """Move a task's files into ``place``, which may hold those of another part."""
    if not place.exists():
        folder.rename(place)
        return
    for file in [path for path in sorted(folder.rglob("*")) if not path.is_dir()]:
        copy = place / file.relative_to(folder)
        if copy.exists():
            name = copy.relative_to(place.parent)
            raise InputError(f"{source} repeats {name}, which another part already has; name every part once")
        copy.parent.mkdir(parents=True, exist_ok=True)
        file.rename(copy)


def _check_staged(sources: Sequence[Path], staged: Path, target: Path) -> list[str]:
    """Return warnings about staged tasks; raise ``InputError`` if one of them is incomplete or malformed."""
    try:
        return [warning for task in _tasks_in(staged) if (warning := _check_readable(task, staged, target))]
    except InputError as error:
        hint = hint_at_parts(sources, staged) if isinstance(error, IncompleteCopyError) else ""
        # The user knows the sources, not the temporary folder.
        message = f"{error}{hint}".replace(str(staged), " + ".join(map(str, sources)))
        raise InputError(f"{message}; nothing was imported") from error


def _unpack(source: Path, unpacked: Path, target: Path, limits: Limits) -> None:
    if not source.is_dir():
        say(f"unpacking {source}")
        unpack(source, unpacked, limits)
        return
    base = find_base(source)
    tasks = _tasks_in(base)
    check_absent(tasks, target)
    for task in tasks:
        place = find_task(task, base)
        if unpacked.is_relative_to(place):
            raise InputError(f"{target} is inside {place}, which would be copied; import into another folder")
        say(f"copying {task.name}")
        (unpacked / task.name).mkdir()
        unpack(place, unpacked / task.name, limits)


def _tasks_in(base: Path) -> list[Task]:
    return [task for task in VTAB.tasks if folders_of(task, base)]


def _check_readable(task: Task, base: Path, target: Path) -> str:
    """Raise ``InputError`` if a file is missing; return a warning if the counts differ from the catalogue's."""
    folder = open_task(task, base)
    paths = {entry.path for entries in folder.entries.values() for entry in entries}
    faults = scan_images(folder.path, paths).faults
    if faults:
        raise IncompleteCopyError(f"{faults[0]} ({len(faults)} of {len(paths)} images of {task.name} cannot be read)")
    counts = {role: len(entries) for role, entries in folder.entries.items()}
    return doubts_about(folder, counts, target)


def place(tasks: Sequence[Task], staged: Path, target: Path) -> list[str]:
    """Move the folders of tasks from ``staged`` into ``target``, all or none; return the names of the tasks.

    Call it within ``settled``.
    """
    check_absent(tasks, target)
    placed: list[str] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for task in tasks:
            (staged / task.name).rename(target / task.name)
            placed.append(task.name)
    except OSError as error:
        for name in placed:
            (target / name).rename(staged / name)
        raise InputError(f"cannot write to {target}: {error}") from error
    return placed


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Make a temporary folder on the file system of ``target``, so that the last step of an import is a rename."""
    # Where the target exists, another disk may be mounted, or it may be a link to one.
    place = target if target.is_dir() else target.parent
    try:
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.import-", dir=place)).resolve()
    except OSError as error:
        raise InputError(f"cannot write to {place}: {error}") from error
    try:
        yield folder
    finally:
        # A second Ctrl-C would leave gigabytes in a hidden folder.
        with settled():
            shutil.rmtree(folder, ignore_errors=True)
