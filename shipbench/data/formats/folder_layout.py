"""What the folders below a folder of images are: wrappers of an archive, splits, or classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipbench.counts import named_few
from shipbench.data.formats.files import is_hidden, is_image
from shipbench.data.formats.lists import has_lists
from shipbench.data.formats.roles import role_of, role_within
from shipbench.errors import InputError

_DEEPEST_WRAPPER = 5
# Lone folders of images in a split, with which loaders of class folders read images without labels.
_BINS = ("images", "image", "imgs", "img", "unknown", "unlabeled", "unlabelled", "all_classes")


@dataclass(frozen=True)
class Level:
    """The visible content of one folder: subfolders sorted by code point, and numbers of files."""

    folders: tuple[str, ...]
    images: int
    others: int
    hidden: int


def look_at(folder: Path) -> Level:
    """Return the visible content of a folder."""
    folders, images, others, hidden = [], 0, 0, 0
    with os.scandir(folder) as items:
        for item in items:
            if is_hidden(item.name):
                hidden += 1
            elif item.is_dir():
                folders.append(item.name)
            elif is_image(item.name):
                images += 1
            else:
                others += 1
    return Level(tuple(sorted(folders)), images, others, hidden)


def unwrapped(folder: Path) -> Path:
    """Step into lone folders that hold folders, as archives leave them."""
    for _ in range(_DEEPEST_WRAPPER):
        level = look_at(folder)
        if level.images or len(level.folders) != 1 or has_lists(folder) or role_of(level.folders[0]):
            break
        inner = look_at(folder / level.folders[0])
        if inner.images and not has_lists(folder / level.folders[0]):
            break
        folder /= level.folders[0]
    return folder


def has_splits(root: Path, options: Mapping[str, Any]) -> bool:
    """Return whether the folders in ``root`` are splits, else classes; raise ``InputError`` if they are both."""
    if "splits" in options:
        return True
    folders = look_at(root).folders
    named = [name for name in folders if role_of(name)]
    if not any(look_at(root / name).folders for name in named):
        if (named and len(named) == len(folders)) or _are_unlabelled_splits(root, folders):
            raise InputError(
                f"the folders {named_few(folders)} in {root} hold no class folders; make a folder for each class in "
                f'them, or write layout = "classes" in the task file if these are the classes{table_hint(root)}'
            )
        return bool(worded_splits(root, folders))
    others = [name for name in folders if name not in named and holds_image(root / name)]
    if others:
        raise InputError(
            f"{root} holds folders named after splits ({named_few(named)}) beside others ({named_few(others)}); "
            'write layout = "splits" in the task file to leave the others out, or layout = "classes" if all are classes'
        )
    return True


def _are_unlabelled_splits(root: Path, folders: Sequence[str]) -> bool:
    """Return whether all folders are called after splits in longer names, as ``train2017``, and none holds classes."""
    roles = {role_within(name) for name in folders}
    return None not in roles and len(roles) > 1 and not any(look_at(root / name).folders for name in folders)


def worded_splits(root: Path, folders: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that have a split's name as a part, as ``training_set`` and ``seg_test`` in archives.

    They count if they are a train and another split with class folders of the same names.
    """
    classes = {name: set(look_at(root / inside(root, name)).folders) for name in folders if role_within(name)}
    train = [name for name in classes if role_within(name) == "train"]
    if len(train) != 1:
        return ()
    alike = [name for name in classes if len(classes[name] & classes[train[0]]) > 1]
    return tuple(alike) if len(alike) > 1 else ()


def inside(root: Path, split: str) -> str:
    """Return the folder that holds a split's classes: its own, or the lone one of the same name in it."""
    level = look_at(root / split)
    is_doubled = level.folders == (split,) and not level.images and look_at(root / split / split).folders
    return f"{split}/{split}" if is_doubled else split


def class_splits(root: Path) -> list[str]:
    """Return the names of the splits if every class folder holds nothing but folders named after splits, else none.

    Without an image in any of these, the folders at the top are no classes but domains, whose splits hold the classes.
    """
    splits: dict[str, tuple[str, ...]] = {}
    for folder in look_at(root).folders:
        level = look_at(root / folder)
        if level.images or not level.folders or role_of(folder) or not all(map(role_of, level.folders)):
            return []
        splits[folder] = level.folders
    names = sorted({name for inner in splits.values() for name in inner})
    roles = set(map(role_of, names))
    if len(splits) < 2 or "train" not in roles or len(roles) < 2:
        return []
    has_images = any(look_at(root / folder / name).images for folder, inner in splits.items() for name in inner)
    return names if has_images else []


def is_unsorted(root: Path, split: str) -> bool:
    """Return whether a split has images of unknown classes: no folders, or a lone one as ``images``."""
    level = look_at(root / split)
    if not level.folders:
        return True
    only = level.folders[0]
    is_bin = only.lower() in _BINS or bool(role_of(only))
    return len(level.folders) == 1 and not level.images and is_bin and not look_at(root / split / only).folders


def deeper_folders(root: Path, *, in_split: bool = False) -> str:
    """Return a note if no class folder has images of its own, so that the classes may be the folders below.

    Folders that recur in every class may be classes of domains, unless ``root`` is the folder of a split.
    """
    classes = look_at(root).folders
    below = []
    for name in classes:
        level = look_at(root / name)
        if level.images or not level.folders:
            return ""
        below.append(level.folders)
    common = sorted(set(below[0]).intersection(*below[1:])) if below else []
    if common and not in_split:
        one = next((name for name in classes if role_within(name) == "train"), classes[0])
        other = next(name for name in reversed(classes) if name != one)
        return (
            f"every class folder of {root} holds {named_few(common)}; if these are the classes, name one folder, as "
            f'in folder:{root / one}, or use several as splits: splits = {{ train = "{one}", test = "{other}" }}'
        )
    if sum(map(len, below)) <= len(classes):
        return ""
    inner = named_few(sorted({name for names in below for name in names}))
    return f"the classes are the folders in {root}; the folders below them ({inner}) are not told apart"


def table_hint(folder: Path) -> str:
    """Return a clause that names the tables in a folder, which may hold the labels; empty without one."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".csv", ".tsv"))
    if len(files) > 1:
        return f"; if {named_few([file.name for file in files])} hold the labels, name them csv:{folder}"
    return f"; if {files[0].name} holds the labels, name it csv:{files[0]}" if files else ""


def split_files_hint(folder: Path) -> str:
    """Return a note that names tables and lists called after splits in a folder; empty unless one of them is train."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in (".csv", ".tsv", ".txt")]
    roles = {file.name: role for file in files if (role := role_within(file.stem))}
    if "train" not in roles.values() or len(set(roles.values())) == 1:
        return ""
    return f"{named_few(list(roles))} in {folder} may say which images are for training and testing: csv:{folder}"


def holds_image(folder: Path) -> bool:
    """Return whether there is a visible image at any depth below a folder."""
    return any(is_image(name) for _, _, names in os.walk(folder) for name in names if not is_hidden(name))
