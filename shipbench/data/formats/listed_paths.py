"""From paths as tables write them to files: suffixes, other spellings, and images that lie elsewhere."""

from __future__ import annotations

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from shipbench.data.formats.files import (
    SUFFIXES,
    below_common_folder,
    is_image,
    missing_error,
    missing_files,
    plain_path,
    require_folder,
    visible_files,
)
from shipbench.data.formats.options import place, text_option
from shipbench.errors import InputError

# A table may lie in a home folder; a larger one is not searched for its images.
_MOST_FILES = 1_000_000


class Located(NamedTuple):
    """The folder that images lie below, their paths relative to it in the order of the rows, and notes."""

    root: Path
    paths: list[str]
    notes: list[str]


def locate(images: Sequence[str], where: Path, folder: Path, base: Path, options: Mapping[str, Any]) -> Located:
    """Find the files of the images that the table ``where`` lists, from ``folder`` or the key ``images`` on.

    Paths in other case or Unicode form than the files count if one file fits. If the key names a folder below which no
    path exists, the images are looked up by their names in all folders below it. Raises ``InputError`` if an image is
    missing.
    """
    chosen = text_option(options, "images")
    root = place(chosen, base) if chosen is not None else folder
    require_folder(root, "images")
    common, relative = below_common_folder(images, folder)
    start = root if common is None else common
    paths = _with_suffixes(start, [plain_path(image) for image in relative], options)
    missing = missing_files(start, paths)
    if not missing:
        return Located(start, paths, [])
    files = _files_below(root)
    if common is None and (found := _in_other_spelling(files, paths, missing)):
        return Located(root, [found.get(path, path) for path in paths], [])
    listed = [plain_path(image) for image in images]
    by_name = {} if len(missing) < len(set(paths)) else _by_name(files, listed)
    if by_name and chosen is not None:
        note = f"no path of {where} leads to an image below {root}, so images are found by their names"
        return Located(root, [by_name[path] for path in listed], [note])
    remedy = "restore the files or correct the paths"
    if common is not None or chosen is None:
        example = _folder_of(root, by_name) if by_name else "FOLDER"
        remedy = f"{remedy}, or name the folder that they start from, as in csv:{where}:{example}"
    raise missing_error(start, missing, where, remedy)


def _with_suffixes(root: Path, paths: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Return the paths with the suffix that the task file names, else with those of the files if none has one."""
    chosen = text_option(options, "extension")
    if chosen is not None:
        suffix = chosen if chosen.startswith(".") else f".{chosen}"
        return [path + suffix for path in paths]
    if any(map(is_image, paths)):
        return list(paths)
    suffixes = {folder: _suffixes(root / folder) for folder in {posixpath.dirname(path) for path in paths}}
    completed = []
    for path in paths:
        folder, name = posixpath.split(path)
        found = sorted(suffixes[folder].get(name, ()))
        if len(found) > 1:
            raise InputError(
                f"{path} exists with the suffixes {' and '.join(found)}; "
                f'choose in the task file: extension = "{found[0]}"'
            )
        completed.append(path + "".join(found))
    return completed


def _suffixes(folder: Path) -> dict[str, set[str]]:
    """Return the suffixes of the images in a folder, by the rest of the name."""
    suffixes: dict[str, set[str]] = defaultdict(set)
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.suffix.lower() in SUFFIXES:
            suffixes[file.name.removesuffix(file.suffix)].add(file.suffix)
    return suffixes


def _spelling(path: str) -> str:
    """Return a path without the differences between file systems: case, and letters of one character or two."""
    return unicodedata.normalize("NFC", path).casefold()


def _files_below(root: Path) -> list[str]:
    """Return the paths of all files below a folder; none of them if they are too many to look through."""
    files = list(islice(visible_files(root), _MOST_FILES + 1))
    return files if len(files) <= _MOST_FILES else []


def _in_other_spelling(below: Sequence[str], paths: Sequence[str], missing: Sequence[str]) -> dict[str, str]:
    """Return the file of every missing path, by its spelling; nothing unless each has one file of its own."""
    files: dict[str, list[str]] = defaultdict(list)
    for file in below:
        files[_spelling(file)].append(file)
    found = {path: files[_spelling(path)] for path in missing}
    if any(len(candidates) != 1 for candidates in found.values()):
        return {}
    return _one_to_one({path: path for path in paths} | {path: only for path, (only,) in found.items()})


def _by_name(below: Sequence[str], paths: Sequence[str]) -> dict[str, str]:
    """Return the file with the name of each path; nothing unless each has one file of its own.

    Of several files with that name, the one counts that has the most folders above it in common with the path.
    """
    bare = not any(map(is_image, paths))
    files: dict[str, list[str]] = defaultdict(list)
    for file in below:
        if is_image(file) or not bare:
            files[_name(file, bare)].append(file)
    found: dict[str, str] = {}
    for path in paths:
        ranked = sorted(((_shared(file, path, bare), file) for file in files[_name(path, False)]), reverse=True)
        if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return {}
        found[path] = ranked[0][1]
    return _one_to_one(found)


def _name(path: str, bare: bool) -> str:
    return _spelling(posixpath.basename(posixpath.splitext(path)[0] if bare else path))


def _shared(file: str, path: str, bare: bool) -> int:
    """Return how many parts at the end a file and a path have in common."""
    pairs = zip(reversed(_parts(posixpath.splitext(file)[0] if bare else file)), reversed(_parts(path)), strict=False)
    return next(
        (number for number, (one, other) in enumerate(pairs) if one != other), min(len(_parts(file)), len(_parts(path)))
    )


def _parts(path: str) -> list[str]:
    return _spelling(path).split("/")


def _one_to_one(found: dict[str, str]) -> dict[str, str]:
    return found if len(set(found.values())) == len(found) else {}


def _folder_of(root: Path, by_name: Mapping[str, str]) -> Path:
    """Return the folder from which all listed paths lead to their files, else the one below which they lie."""
    folders = set()
    for path, file in by_name.items():
        depth = len(file.split("/")) - len(path.split("/"))
        folders.add("/".join(file.split("/")[:depth]) if depth > 0 else "")
    return root / folders.pop() if len(folders) == 1 else root
