"""``folder:PATH[:IMAGES]``: a folder per class, with or without split folders above, or a folder with list files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipbench.counts import counted
from shipbench.data.formats.files import UNREAD_SUFFIXES, FolderImages, is_hidden, is_image, require_folder
from shipbench.data.formats.labels import Rows, make_listing, quoted_few
from shipbench.data.formats.lists import has_lists, list_from_files
from shipbench.data.formats.options import (
    choice_option,
    divided,
    place,
    require_known,
    table_option,
    text_option,
    with_images,
)
from shipbench.data.formats.roles import assign_roles, role_of, role_within
from shipbench.data.listings import ListedSource, Listing, SplitRole
from shipbench.errors import InputError

KEYS = ("splits", "layout", "list", "images")

METADATA_SUFFIXES = (".csv", ".jsonl", ".parquet")
"""Suffixes of the file ``metadata`` that holds the labels of a Hugging Face image folder."""

_DEEPEST_WRAPPER = 5


class ImageFolder(ListedSource):
    """The source ``folder``.

    Keys of the task file: ``splits`` (role to folder name), ``layout`` (``"splits"`` or ``"classes"``: what the folders
    at the top are), and for list files ``list`` (which one) and ``images`` (the folder that their paths start from, if
    the location does not name it).
    """

    option_names = KEYS

    def list(self, location: str, base: Path, options: Mapping[str, Any]) -> Listing:
        """List the images below a folder; raise ``InputError`` if its layout is unknown or ambiguous."""
        require_known(options, KEYS, "folder")
        name, images = divided(location, base)
        folder = place(name, base)
        require_folder(folder, f"folder:{name}")
        options = with_images(options, None if images is None else str(place(images, base)))
        return list_folder(folder, _with_absolute_images(options, _unwrapped(folder), base))


def list_folder(folder: Path, options: Mapping[str, Any]) -> Listing:
    """List the images below ``folder`` as the source ``folder`` does."""
    layout = choice_option(options, "layout", ("splits", "classes"))
    root = _unwrapped(folder)
    if layout is None and has_lists(root):
        return list_from_files(root, options)
    for key in ("list", "images"):
        if key in options:
            raise InputError(f"{folder} holds no list file, so {key!r} means nothing; remove it")
    if layout is None:
        _refuse_metadata(root)
    skipped = _Skipped()
    has_splits = _has_splits(root, options) if layout is None else layout == "splits"
    rows = _split_rows(root, options, skipped) if has_splits else _flat_rows(root, options, skipped)
    images = FolderImages(root)
    signatures = images.signatures(path for split in rows.values() for path, _ in split)
    return make_listing(rows, images, root, notes=skipped.sentences(), signatures=signatures)


def _with_absolute_images(options: Mapping[str, Any], root: Path, base: Path) -> Mapping[str, Any]:
    """Return the options; ``images`` starts from ``base`` if it leads to a folder there and to none in ``root``."""
    chosen = text_option(options, "images")
    if chosen is None or place(chosen, root).is_dir() or not place(chosen, base).is_dir():
        return options
    return {**options, "images": str(place(chosen, base))}


@dataclass
class _Skipped:
    """Numbers of the files that are no image of a class, and sentences about folders left out."""

    hidden: int = 0
    others: int = 0
    loose: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """Return one sentence about skipped files, if any, after the remarks."""
        kinds = (
            (self.others, "file that is not an image", "files that are not images"),
            (self.hidden, "hidden file or folder", "hidden files or folders"),
            (self.loose, "image outside the class folders", "images outside the class folders"),
        )
        parts = [counted(number, one, many) for number, one, many in kinds if number]
        if unread := sum(self.unread.values()):
            suffixes = quoted_few(sorted(self.unread), 10)
            parts.append(f"{counted(unread, 'image')} of a kind that is not read ({suffixes}: convert to PNG or JPEG)")
        return [*self.remarks, *([f"skipped {' and '.join(parts)}"] if parts else [])]


@dataclass(frozen=True)
class _Level:
    """The visible content of one folder: subfolders sorted by code point, and numbers of files."""

    folders: tuple[str, ...]
    images: int
    others: int
    hidden: int


def _look_at(folder: Path) -> _Level:
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
    return _Level(tuple(sorted(folders)), images, others, hidden)


def _unwrapped(folder: Path) -> Path:
    """Step into lone folders that hold folders, as archives leave them."""
    for _ in range(_DEEPEST_WRAPPER):
        level = _look_at(folder)
        if level.images or len(level.folders) != 1 or has_lists(folder) or role_of(level.folders[0]):
            break
        inner = _look_at(folder / level.folders[0])
        if inner.images and not has_lists(folder / level.folders[0]):
            break
        folder /= level.folders[0]
    return folder


def _has_splits(root: Path, options: Mapping[str, Any]) -> bool:
    """Return whether the folders in ``root`` are splits, else classes; raise ``InputError`` if they are both."""
    if "splits" in options:
        return True
    folders = _look_at(root).folders
    named = [name for name in folders if role_of(name)]
    if not any(_look_at(root / name).folders for name in named):
        if (named and len(named) == len(folders)) or _are_unlabelled_splits(root, folders):
            raise InputError(
                f"the folders {quoted_few(folders)} in {root} hold no class folders; make a folder for each class in "
                'them, or write layout = "classes" in the task file if these are the classes'
            )
        return bool(_worded_splits(root, folders))
    others = [name for name in folders if name not in named and _holds_image(root / name)]
    if others:
        raise InputError(
            f"{root} holds folders named after splits ({quoted_few(named)}) beside others ({quoted_few(others)}); "
            'write layout = "splits" in the task file to leave the others out, or layout = "classes" if all are classes'
        )
    return True


def _are_unlabelled_splits(root: Path, folders: Sequence[str]) -> bool:
    """Return whether all folders are called after splits in longer names, as ``train2017``, and none holds classes."""
    roles = {role_within(name) for name in folders}
    return None not in roles and len(roles) > 1 and not any(_look_at(root / name).folders for name in folders)


def _worded_splits(root: Path, folders: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that have a split's name as a part, as ``training_set`` and ``seg_test`` in archives.

    They count if they are a train and another split with class folders of the same names.
    """
    classes = {name: set(_look_at(root / _inside(root, name)).folders) for name in folders if role_within(name)}
    train = [name for name in classes if role_within(name) == "train"]
    if len(train) != 1:
        return ()
    alike = [name for name in classes if len(classes[name] & classes[train[0]]) > 1]
    return tuple(alike) if len(alike) > 1 else ()


def _inside(root: Path, split: str) -> str:
    """Return the folder that holds a split's classes: its own, or the lone one of the same name in it."""
    level = _look_at(root / split)
    is_doubled = level.folders == (split,) and not level.images and _look_at(root / split / split).folders
    return f"{split}/{split}" if is_doubled else split


def _split_rows(root: Path, options: Mapping[str, Any], skipped: _Skipped) -> dict[SplitRole, Rows]:
    level = _look_at(root)
    _count_loose(level, skipped)
    chosen = "splits" in options
    worded = () if any(map(role_of, level.folders)) else _worded_splits(root, level.folders)
    candidates = [name for name in level.folders if role_of(name) or name in worded or chosen]
    unlabelled = [name for name in candidates if not _look_at(root / name).folders]
    for name in unlabelled:
        skipped.remarks.append(f"{name} in {root} has no class folders, so no labels, and is left out")
    labelled = [name for name in candidates if name not in unlabelled]
    roles = assign_roles(labelled, options, root, role_within if worded else role_of)
    if left_out := [name for name in level.folders if name not in roles and name not in unlabelled]:
        skipped.remarks.append(f"left out {counted(len(left_out), 'folder')} of {root}: {quoted_few(left_out)}")
    rows: dict[SplitRole, list[Any]] = {}
    for name, role in roles.items():
        rows.setdefault(role, []).extend(_class_rows(root, _inside(root, name), skipped, may_be_empty=role != "train"))
    return {role: tuple(split) for role, split in rows.items()}


def _flat_rows(root: Path, options: Mapping[str, Any], skipped: _Skipped) -> dict[SplitRole, Rows]:
    if table_option(options, "splits"):
        raise InputError('the task file has both layout = "classes" and splits; a folder of classes has no splits')
    level = _look_at(root)
    if not level.folders:
        raise InputError(f"{root} {_why_no_classes(root, level)}")
    if named := [name for name in level.folders if role_of(name)]:
        skipped.remarks.append(f"{quoted_few(named)} in {root} is read as a class, not as a split")
    return {"train": _class_rows(root, "", skipped, may_be_empty=False)}


def _refuse_metadata(root: Path) -> None:
    """Raise ``InputError`` for a Hugging Face image folder, whose labels are in a file."""
    folders = [root, *(root / name for name in _look_at(root).folders if role_of(name))]
    metadata = [file for folder in folders for file in folder.glob("metadata.*") if file.suffix in METADATA_SUFFIXES]
    if metadata:
        raise InputError(
            f"{metadata[0]} holds the labels of a Hugging Face image folder; name it hf:{root}, or write "
            'layout = "splits" or "classes" in the task file to read the folder names'
        )


def _why_no_classes(root: Path, level: _Level) -> str:
    names = sorted(path.name for path in root.iterdir())
    if any(name.endswith((".parquet", ".arrow")) for name in names):
        return f"has no class folders; it looks like a Hugging Face data set: name it hf:{root}"
    for suffix, kind in ((".csv", "csv"), (".npz", "npz")):
        if file := next((name for name in names if name.lower().endswith(suffix)), None):
            holds = "the labels" if kind == "csv" else "images and labels"
            return f"has no class folders; if {file} holds {holds}, name it {kind}:{root / file}"
    if level.images:
        return f"holds {counted(level.images, 'image')} but no class folders; make a folder for each class"
    return "has no class folders; it needs a folder with images for each class"


def _class_rows(root: Path, split: str, skipped: _Skipped, *, may_be_empty: bool) -> Rows:
    folder = root / split
    level = _look_at(folder)
    _count_loose(level, skipped)
    rows: list[tuple[str, str]] = []
    empty = []
    for name in level.folders:
        paths = _image_paths(root, f"{split}/{name}" if split else name, skipped)
        rows += [(path, name) for path in paths]
        if not paths:
            empty.append(name)
    if empty and not may_be_empty:
        folders = f"{counted(len(empty), 'class folder')} of {folder} without any image"
        raise InputError(f"{folders}: {quoted_few(empty)}; add images or remove the folder")
    return rows


def _count_loose(level: _Level, skipped: _Skipped) -> None:
    skipped.loose += level.images
    skipped.others += level.others
    skipped.hidden += level.hidden


def _image_paths(root: Path, top: str, skipped: _Skipped) -> list[str]:
    """Return the sorted paths, relative to ``root``, of all images at any depth below ``top``."""
    paths: list[str] = []
    folders = [top]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as items:
            for item in items:
                if is_hidden(item.name):
                    skipped.hidden += 1
                elif item.is_dir():
                    if not _leads_up(item):
                        folders.append(f"{folder}/{item.name}")
                elif is_image(item.name):
                    paths.append(f"{folder}/{item.name}")
                elif (suffix := os.path.splitext(item.name)[1].lower()) in UNREAD_SUFFIXES:  # noqa: PTH122
                    skipped.unread[suffix] += 1
                else:
                    skipped.others += 1
    return sorted(paths)


def _leads_up(item: os.DirEntry[str]) -> bool:
    """Whether a link leads to a folder that holds it, so that following it would never end."""
    if not item.is_symlink():
        return False
    holder = Path(item.path).parent.resolve()
    return holder.is_relative_to(Path(item.path).resolve())


def _holds_image(folder: Path) -> bool:
    return any(is_image(name) for _, _, names in os.walk(folder) for name in names if not is_hidden(name))
