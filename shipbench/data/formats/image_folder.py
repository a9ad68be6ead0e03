"""``folder:PATH[:IMAGES]``: a folder per class, with or without split folders above, or a folder with list files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipbench.counts import counted, named_few
from shipbench.data.formats.files import UNREAD_SUFFIXES, FolderImages, is_hidden, is_image, leads_up, require_folder
from shipbench.data.formats.folder_layout import (
    Level,
    class_splits,
    deeper_folders,
    has_splits,
    inside,
    is_unsorted,
    look_at,
    split_files_hint,
    table_hint,
    unwrapped,
    worded_splits,
)
from shipbench.data.formats.labels import Rows, make_listing
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


_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")


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
        return list_folder(folder, _with_absolute_images(options, unwrapped(folder), base))


def list_folder(folder: Path, options: Mapping[str, Any]) -> Listing:
    """List the images below ``folder`` as the source ``folder`` does."""
    layout = choice_option(options, "layout", ("splits", "classes"))
    root = unwrapped(folder)
    if layout is None and has_lists(root):
        return list_from_files(root, options)
    for key in ("list", "images"):
        if key in options:
            raise InputError(f"{folder} holds no list file, so {key!r} means nothing; remove it")
    if layout is None:
        _refuse_metadata(root)
    skipped = _Skipped()
    rows, untrainable = _rows(root, layout, options, skipped)
    hint = table_hint(root) or "".join(f"; {note}" for note in skipped.nested)
    if hint and len({label for split in rows.values() for _, label in split}) == 1:
        raise InputError(f"the folders of {root} give all images one class{hint}")
    if "test" not in rows:
        skipped.remarks += filter(None, map(split_files_hint, dict.fromkeys((folder, root))))
    images = FolderImages(root)
    signatures = images.signatures(path for split in rows.values() for path, _ in split)
    notes = skipped.sentences()
    return make_listing(rows, images, root, notes=notes, signatures=signatures, untrainable=untrainable)


def _rows(
    root: Path, layout: str | None, options: Mapping[str, Any], skipped: _Skipped
) -> tuple[dict[SplitRole, Rows], str]:
    """Return the rows by split, and why they cannot be trained on."""
    if layout is None and (names := class_splits(root)):
        return _rows_by_class(root, names, options, skipped)
    splits_on_top = has_splits(root, options) if layout is None else layout == "splits"
    return _split_rows(root, options, skipped) if splits_on_top else (_flat_rows(root, options, skipped), "")


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
    nested: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """Return one sentence about skipped files, if any, after the remarks and those about nested classes."""
        kinds = (
            (self.others, "file that is not an image", "files that are not images"),
            (self.hidden, "hidden file or folder", "hidden files or folders"),
            (self.loose, "image outside the class folders", "images outside the class folders"),
        )
        parts = [counted(number, one, many) for number, one, many in kinds if number]
        if unread := sum(self.unread.values()):
            suffixes = named_few(sorted(self.unread), 10)
            parts.append(f"{counted(unread, 'image')} of a kind that is not read ({suffixes}: convert to PNG or JPEG)")
        return [*self.remarks, *self.nested, *([f"skipped {' and '.join(parts)}"] if parts else [])]


def _split_rows(root: Path, options: Mapping[str, Any], skipped: _Skipped) -> tuple[dict[SplitRole, Rows], str]:
    level = look_at(root)
    _count_loose(level, skipped)
    chosen = "splits" in options
    worded = () if any(map(role_of, level.folders)) else worded_splits(root, level.folders)
    candidates = [name for name in level.folders if role_of(name) or name in worded or chosen]
    unlabelled = [name for name in candidates if not look_at(root / name).folders]
    unlabelled += [name for name in candidates if name not in unlabelled and _is_unsorted(root, name, candidates)]
    for name in unlabelled:
        skipped.remarks.append(f"{name} in {root} has no class folders, so no labels, and is left out")
    labelled = [name for name in candidates if name not in unlabelled]
    roles, untrainable = assign_roles(labelled, options, root, role_within if worded else role_of)
    if left_out := [name for name in level.folders if name not in roles and name not in unlabelled]:
        skipped.remarks.append(f"left out {counted(len(left_out), 'folder')} of {root}: {named_few(left_out)}")
    rows: dict[SplitRole, list[Any]] = {}
    for name, role in roles.items():
        rows.setdefault(role, []).extend(_class_rows(root, inside(root, name), skipped, may_be_empty=role != "train"))
        if role == "train" and (note := deeper_folders(root / inside(root, name), in_split=True)):
            skipped.nested.append(note)
    return {role: tuple(split) for role, split in rows.items()}, untrainable


def _is_unsorted(root: Path, split: str, candidates: Sequence[str]) -> bool:
    """Return whether a split other than train has its images in a lone folder that is a class of no other split."""
    if role_within(split) == "train" or not is_unsorted(root, split):
        return False
    others = [look_at(root / inside(root, name)).folders for name in candidates if name != split]
    return not any(look_at(root / split).folders[0] in folders for folders in others if len(folders) > 1)


def _rows_by_class(
    root: Path, names: Sequence[str], options: Mapping[str, Any], skipped: _Skipped
) -> tuple[dict[SplitRole, Rows], str]:
    """Return the rows of class folders that hold the folders of the splits."""
    level = look_at(root)
    _count_loose(level, skipped)
    roles, untrainable = assign_roles(names, options, root)
    skipped.remarks.append(f"the folders {named_few(names)} in the class folders of {root} are read as splits")
    if left_out := [name for name in names if name not in roles]:
        skipped.remarks.append(f"left out {counted(len(left_out), 'split')} of {root}: {named_few(left_out)}")
    rows: dict[SplitRole, list[tuple[str, str]]] = {}
    for label in level.folders:
        for split in look_at(root / label).folders:
            if role := roles.get(split):
                paths = _image_paths(root, f"{label}/{split}", skipped)
                rows.setdefault(role, []).extend((path, label) for path in paths)
    full = {label for split in rows.values() for _, label in split}
    if empty := [name for name in level.folders if name not in full]:
        raise InputError(f"{_without_images(root, empty)}; add images or remove the folder")
    return {**rows}, untrainable


def _without_images(folder: Path, classes: Sequence[str]) -> str:
    return f"{counted(len(classes), 'class folder')} of {folder} without any image: {named_few(classes)}"


def _flat_rows(root: Path, options: Mapping[str, Any], skipped: _Skipped) -> dict[SplitRole, Rows]:
    if table_option(options, "splits"):
        raise InputError('the task file has both layout = "classes" and splits; a folder of classes has no splits')
    level = look_at(root)
    if not level.folders:
        raise InputError(f"{root} {_why_no_classes(root, level)}")
    if named := [name for name in level.folders if role_of(name)]:
        skipped.remarks.append(f"{named_few(named)} in {root} is read as a class, not as a split")
    if note := deeper_folders(root):
        skipped.nested.append(note)
    return {"train": _class_rows(root, "", skipped, may_be_empty=False)}


def _refuse_metadata(root: Path) -> None:
    """Raise ``InputError`` for a Hugging Face image folder, whose labels are in a file."""
    folders = [root, *(root / name for name in look_at(root).folders if role_of(name))]
    metadata = [file for folder in folders for file in folder.glob("metadata.*") if file.suffix in METADATA_SUFFIXES]
    if metadata:
        raise InputError(
            f"{metadata[0]} holds the labels of a Hugging Face image folder; name it hf:{root}, or write "
            'layout = "splits" or "classes" in the task file to read the folder names'
        )


def _why_no_classes(root: Path, level: Level) -> str:
    names = sorted(path.name for path in root.iterdir())
    if any(name.endswith((".parquet", ".arrow")) for name in names):
        return f"has no class folders; it looks like a Hugging Face data set: name it hf:{root}"
    for suffix, kind in ((".csv", "csv"), (".npz", "npz")):
        if file := next((name for name in names if name.lower().endswith(suffix)), None):
            holds = "the labels" if kind == "csv" else "images and labels"
            return f"has no class folders; if {file} holds {holds}, name it {kind}:{root / file}"
    if level.images:
        return f"holds {counted(level.images, 'image')} but no class folders; make a folder for each class"
    if packed := [name for name in names if name.lower().endswith(_ARCHIVES)]:
        return f"has no class folders but archives ({named_few(packed)}); unpack them"
    held = f"; it holds {named_few(names)}" if names else ""
    return f"has no class folders; it needs a folder with images for each class{held}"


def _class_rows(root: Path, split: str, skipped: _Skipped, *, may_be_empty: bool) -> Rows:
    folder = root / split
    level = look_at(folder)
    _count_loose(level, skipped)
    rows: list[tuple[str, str]] = []
    empty = []
    for name in level.folders:
        paths = _image_paths(root, f"{split}/{name}" if split else name, skipped)
        rows += [(path, name) for path in paths]
        if not paths:
            empty.append(name)
    if empty and not may_be_empty:
        full = [name for name in level.folders if name not in empty]
        is_wrapper = len(full) == 1 and look_at(folder / full[0]).folders
        instead = f", or, if the classes are in {full[0]}, name it folder:{folder / full[0]}" if is_wrapper else ""
        hint = table_hint(folder)
        raise InputError(f"{_without_images(folder, empty)}; add images or remove the folder{instead}{hint}")
    return rows


def _count_loose(level: Level, skipped: _Skipped) -> None:
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
                    if not (item.is_symlink() and leads_up(Path(item.path))):
                        folders.append(f"{folder}/{item.name}")
                elif is_image(item.name):
                    paths.append(f"{folder}/{item.name}")
                elif (suffix := os.path.splitext(item.name)[1].lower()) in UNREAD_SUFFIXES:  # noqa: PTH122
                    skipped.unread[suffix] += 1
                else:
                    skipped.others += 1
    return sorted(paths)
