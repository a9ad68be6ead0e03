"""Import the FGVC data sets from their official archives and label files, or from folders.

Every file finds its place by its name: archives of images, of labels and of VPT's JSON files may be given in any number
and order.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from shipbench.data.acquisition.archives import DAMAGED, Parts, is_archive, open_tar, unpack
from shipbench.data.acquisition.importing import check_absent, place, temporary_folder
from shipbench.data.fgvc.source import list_set
from shipbench.data.formats.files import is_hidden
from shipbench.errors import InputError
from shipbench.runtime.console import say
from shipbench.runtime.interrupts import settled
from shipbench.tasks.catalogue import FGVC, Task

DEFAULT_FOLDER = Path("data/fgvc")

_BY_FILE = {
    "imagelabels.mat": "oxford-flowers",
    "setid.mat": "oxford-flowers",
    "train_list.mat": "stanford-dogs",
    "test_list.mat": "stanford-dogs",
    "cars_annos.mat": "stanford-cars",
    "cars_meta.mat": "stanford-cars",
    "cars_train_annos.mat": "stanford-cars",
    "cars_test_annos_withlabels.mat": "stanford-cars",
}
_CAR_FOLDERS = ("car_ims", "cars_train", "cars_test")
_DOG_FOLDER = re.compile(r"n\d{8}-")
_PEEKED = 500


def _plain(name: str) -> str:
    return re.sub("[-_ ]", "", name.lower())


_TASKS = {task.name: task for task in FGVC.tasks}
_BY_FOLDER = {_plain(name): task.name for task in FGVC.tasks for name in task.folder_names}


def destination(parts: Parts) -> tuple[str, Parts] | None:
    """Return the data set that a file belongs to and its path in it; ``None`` if its name does not tell."""
    *folders, name = parts
    if any(is_hidden(part) for part in parts):
        return None
    if name in _BY_FILE:
        return _BY_FILE[name], (name,)
    for depth in reversed(range(len(folders))):
        folder = folders[depth]
        if task := _BY_FOLDER.get(_plain(folder)):
            return task, parts[depth + 1 :]
        if folder in _CAR_FOLDERS:
            return "stanford-cars", parts[depth:]
        if folder == "jpg" and name.startswith("image_"):
            return "oxford-flowers", parts[depth:]
        if folder == "Images" and _DOG_FOLDER.match(parts[depth + 1]):
            return "stanford-dogs", parts[depth:]
    return None


def holds_fgvc(source: Path) -> bool:
    """Return whether the first files of an archive, a folder or a label file belong to an FGVC data set."""
    return any(destination(parts) for parts in islice(_peek(source), _PEEKED))


def import_fgvc(sources: Sequence[Path], target: Path) -> list[str]:
    """Import FGVC data sets into the folder ``target``; return the names of their tasks.

    Nothing appears in ``target`` unless all data sets are complete; sizes that differ from the catalogue's are said.
    Raises ``InputError`` if a source is missing, damaged or hostile, if a data set lacks labels or images, and if
    ``target`` already has one of the data sets.
    """
    check_absent([], target)
    with ExitStack() as last_step:
        with temporary_folder(target) as workspace:
            staged = workspace / "staged"
            staged.mkdir()
            for number, source in enumerate(sources):
                _stage(source, workspace / str(number), staged)
            tasks = [task for task in FGVC.tasks if (staged / task.name).is_dir()]
            remarks = [remark for task in tasks for remark in _check(task, staged, sources)]
            last_step.enter_context(settled())
            placed = place(tasks, staged, target)
        for remark in remarks:
            say(remark)
    return placed


def _peek(source: Path) -> Iterator[Parts]:
    """Yield the paths of a source's first files without unpacking it; none if it cannot be read."""
    root = _root_name(source)
    try:
        if source.is_dir():
            seen = set[str]()
            for folder, names, files in os.walk(source, followlinks=True):
                # Image folders are many; their first files tell enough. A link may lead back up.
                is_new = os.path.realpath(folder) not in seen
                seen.add(os.path.realpath(folder))
                names[:] = sorted(names)[:10] if is_new else []
                for name in sorted(files)[:3]:
                    yield (root, *Path(folder, name).relative_to(source).parts)
        elif not is_archive(source.name):
            yield (source.name,)
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                yield from ((root, *_parts(name)) for name in archive.namelist() if not name.endswith("/"))
        else:
            with open_tar(source) as members:
                yield from ((root, *_parts(member.name)) for member in members if not member.isdir())
    except (OSError, *DAMAGED):
        # The import itself says what is wrong.
        return


def _parts(name: str) -> Parts:
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _root_name(source: Path) -> str:
    """Return the name of a folder, or of an archive without its suffixes: it may be all that names the data set."""
    return source.resolve().name if source.is_dir() else re.sub(r"(\.tar)?\.\w+$", "", source.name)


def _stage(source: Path, unpacked: Path, staged: Path) -> None:
    """Move a source's files to their places in ``staged``."""
    if not source.exists():
        raise InputError(f"{source} does not exist; name an archive, a folder or a label file")
    root = _root_name(source)
    base = unpacked / root
    base.mkdir(parents=True)
    if source.is_file() and source.name in _BY_FILE:
        (base / source.name).write_bytes(source.read_bytes())
    else:
        say(f"{'copying' if source.is_dir() else 'unpacking'} {source}")
        unpack(source, base)
    moved = 0
    for folder, _, files in os.walk(base):
        for name in files:
            file = Path(folder, name)
            if belongs := destination(file.relative_to(unpacked).parts):
                _move(file, staged.joinpath(belongs[0], *belongs[1]), source)
                moved += 1
    if not moved:
        raise InputError(f"{source} holds nothing of an FGVC data set; nothing was imported")


def _move(file: Path, copy: Path, source: Path) -> None:
    if copy.exists():
        raise InputError(f"{source} repeats {copy.name}, which another part already has; name every part once")
    copy.parent.mkdir(parents=True, exist_ok=True)
    file.rename(copy)


def _check(task: Task, staged: Path, sources: Sequence[Path]) -> list[str]:
    """Return remarks on a staged data set; raise ``InputError`` if it is not complete."""
    folder = staged / task.name
    try:
        return [f"note: {task.name}: {note.replace(str(folder), task.name)}" for note in list_set(task, folder).notes]
    except InputError as error:
        # The user knows the sources, not the temporary folder.
        message = str(error).replace(str(folder), task.name).replace(str(staged), " + ".join(map(str, sources)))
        raise InputError(f"{message}; name all parts in one command; nothing was imported") from error
