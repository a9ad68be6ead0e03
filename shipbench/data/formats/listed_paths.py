"""From paths as tables write them to files: suffixes, other spellings, and images that lie elsewhere."""

from __future__ import annotations

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from shipbench.counts import counted
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
from shipbench.data.formats.roles import role_within
from shipbench.data.listings import SplitRole
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
        note = f"found {counted(len(missing), 'image')} of {where} under a path in other case or Unicode form"
        return Located(root, [found.get(path, path) for path in paths], [note])
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
    found = [suffixes[folder].get(name, set()) for folder, name in map(posixpath.split, paths)]
    common = set.intersection(*found) if found else set()
    if len(common) == 1:
        # Other files of these names, as masks, do not matter.
        found = [common] * len(paths)
    if several := next((path for path, each in zip(paths, found, strict=True) if len(each) > 1), None):
        fitting = sorted(found[paths.index(several)])
        raise InputError(
            f"{several} exists with the suffixes {' and '.join(fitting)}; "
            f'choose in the task file: extension = "{fitting[0]}"'
        )
    return [path + "".join(each) for path, each in zip(paths, found, strict=True)]


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

    Of several files with that name, the one counts that has the most folders above it in common with the path. A file
    in a folder called after another split never counts.
    """
    bare = not any(map(is_image, paths))
    files = _grouped((file for file in below if is_image(file) or not bare), bare)
    found: dict[str, str] = {}
    for name, group in _grouped(dict.fromkeys(paths), False).items():
        by_end = _by_end(files.get(name, ()), bare)
        for path in group:
            closest = next((by_end[end] for end in _ends(path) if end in by_end), [])
            closest = [file for file in closest if not _are_in_different_splits(file, path)]
            if len(closest) != 1:
                return {}
            found[path] = closest[0]
    return _one_to_one(found)


def _grouped(paths: Iterable[str], bare: bool) -> dict[str, list[str]]:
    """Return paths by the spelling of their names, without suffixes if ``bare``."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[_spelling(posixpath.basename(_stem(path) if bare else path))].append(path)
    return groups


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _by_end(files: Iterable[str], bare: bool) -> dict[str, list[str]]:
    """Return files by every end of their paths, so that looking up a path takes no longer for many files."""
    by_end: dict[str, list[str]] = defaultdict(list)
    for file in files:
        for end in _ends(_stem(file) if bare else file):
            by_end[end].append(file)
    return by_end


def _ends(path: str) -> list[str]:
    """Return the path, then the path without its first folder, without its first two, down to the file's name."""
    parts = _spelling(path).split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _are_in_different_splits(file: str, path: str) -> bool:
    one, other = _splits_above(posixpath.dirname(file)), _splits_above(posixpath.dirname(path))
    return bool(one and other) and one.isdisjoint(other)


@lru_cache(maxsize=1024)
def _splits_above(folder: str) -> frozenset[SplitRole]:
    return frozenset(role for part in folder.split("/") if (role := role_within(part)))


def _one_to_one(found: dict[str, str]) -> dict[str, str]:
    return found if len(set(found.values())) == len(found) else {}


def _folder_of(root: Path, by_name: Mapping[str, str]) -> Path:
    """Return the folder from which all listed paths lead to their files, else the one below which they lie."""
    folders = set()
    for path, file in by_name.items():
        depth = len(file.split("/")) - len(path.split("/"))
        folders.add("/".join(file.split("/")[:depth]) if depth > 0 else "")
    return root / folders.pop() if len(folders) == 1 else root
