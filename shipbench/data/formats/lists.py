"""List files beside the images: CoOp's JSON, VPT's JSON, NOAH's lists and VTAB-1k's split files.

- CoOp: ``split_zhou_NAME.json``, with ``[path, label, class name]`` under train, val and test.
- VPT: ``train.json``, ``val.json`` and ``test.json``, each an object from image path to class id.
- NOAH: ``annotations/train_meta.list.num_shot_1.seed_0``, ``val_meta.list`` and ``test_meta.list``, lines of a path and
  a label.
- VTAB-1k: ``train800.txt``, ``val200.txt`` and ``test.txt``, lines of the same form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shipbench.data.formats.files import (
    FolderImages,
    below_common_folder,
    find_image_root,
    lines_of,
    plain_path,
    require_files,
    require_folder,
)
from shipbench.data.formats.labels import Label, Rows, Split, folder_names, make_listing, require_one_numbering
from shipbench.data.formats.options import place, text_option
from shipbench.data.formats.roles import ROLES, assign_roles, role_of
from shipbench.data.images import read_bytes
from shipbench.data.listings import Listing, SplitRole
from shipbench.errors import InputError
from shipbench.runtime.json_text import parse_json

_COOP = "split_zhou_*.json"
_PROBED = 5
_LINE = re.compile(r"(.*\S)[ \t]+([0-9]+)")


def has_lists(folder: Path) -> bool:
    """Return whether ``folder`` holds list files of a known form."""
    return bool(_coop_files(folder) or _json_files(folder) or _meta_lists(folder) or _vtab_lists(folder))


def list_from_files(folder: Path, options: Mapping[str, Any]) -> Listing:
    """List the images that the list files in ``folder`` name.

    Raises ``InputError`` if a file is malformed, if the task file must choose between files, and if images are missing.
    """
    if splits := _coop_files(folder):
        return _coop_listing(folder, _choose(splits, options, folder), options)
    if "list" in options:
        raise InputError(f"{folder} has no {_COOP} to choose with the task file's key 'list'; remove the key")
    if files := _json_files(folder):
        return _listing(folder, files, _class_ids, role_of, options)
    if files := _meta_lists(folder):
        return _listing(folder, files, read_lines, _meta_role, options)
    return _listing(folder, _vtab_lists(folder), read_lines, _vtab_role, options)


def read_class_ids(file: Path) -> Rows:
    """Read VPT's JSON: an object from image path to class id, a number or a text.

    Numbers that are whole become integers. Raises ``InputError`` if the file has another form.
    """
    content = _read_json(file)
    if not isinstance(content, dict) or not all(_is_id(value) for value in content.values()):
        raise InputError(f"{file} is not an object from image path to class id; correct it or leave it out")
    return [(plain_path(path), _whole(value)) for path, value in content.items()]


def _class_ids(file: Path) -> Rows:
    try:
        return read_class_ids(file)
    except InputError as error:
        layouts = 'layout = "splits" or "classes"'
        raise InputError(f"{error}, or write {layouts} in the task file to read class folders") from error


def read_lines(file: Path) -> Rows:
    """Read lines of a path and a label, divided at the last space or tab.

    Raises ``InputError`` naming the first line of another form.
    """
    try:
        text = read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text; save it as UTF-8") from error
    rows: list[tuple[str, Label]] = []
    for number, line in enumerate(lines_of(text), start=1):
        if not line.strip():
            continue
        parts = _LINE.fullmatch(line.strip())
        if parts is None:
            raise InputError(
                f"{file}, line {number}: expected a path, a space and a whole number, found {line.rstrip()[:120]!r}"
            )
        rows.append((plain_path(parts[1]), int(parts[2])))
    return rows


def with_common_labels(rows: Mapping[Split, Rows]) -> dict[Split, Rows]:
    """Return the rows with text labels as integers if all labels of all splits are integers or integer texts."""
    texts = {str(label) for split in rows.values() for _, label in split}
    convert: Callable[[str], Label] = int if all(text.removeprefix("-").isdecimal() for text in texts) else str
    labels = {text: convert(text) for text in texts}
    return {name: [(path, labels[str(label)]) for path, label in split] for name, split in rows.items()}


def _is_id(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _whole(value: float | str) -> Label:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) else str(value)


def _coop_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(_COOP))


def _json_files(folder: Path) -> dict[str, Path]:
    """Return VPT's JSON files by stem, those of partial training sets (``train_0.1``) included."""
    files = {file.stem: file for file in sorted(folder.glob("*.json"))}
    kept = {stem: file for stem, file in files.items() if role_of(stem) or role_of(stem.partition("_")[0]) == "train"}
    return kept if any(role_of(stem) == "train" for stem in kept) else {}


def _meta_lists(folder: Path) -> dict[str, Path]:
    files = sorted((folder / "annotations").glob("*_meta.list*"))
    return {file.name: file for file in files if _meta_role(file.name)}


def _vtab_lists(folder: Path) -> dict[str, Path]:
    names = {"train800": "train800.txt", "val200": "val200.txt", "test": "test.txt"}
    files = {name: folder / file for name, file in names.items() if (folder / file).is_file()}
    return files if {"train800", "test"} <= files.keys() else {}


def _choose(files: Sequence[Path], options: Mapping[str, Any], folder: Path) -> Path:
    names = [file.name for file in files]
    wanted = text_option(options, "list")
    if wanted is None and len(files) > 1:
        raise InputError(f'{folder} holds {", ".join(names)}; choose one in the task file: list = "{names[0]}"')
    if wanted is not None and wanted not in names:
        raise InputError(f"the task file chooses list = {wanted!r}, but {folder} holds {', '.join(names)}")
    return files[0] if wanted is None else folder / wanted


def _listing(
    folder: Path,
    files: Mapping[str, Path],
    read: Callable[[Path], Rows],
    meaning: Callable[[str], SplitRole | None],
    options: Mapping[str, Any],
) -> Listing:
    roles, untrainable = assign_roles(files, options, folder, meaning)
    read_rows = with_common_labels({name: read(files[name]) for name in roles})
    require_one_numbering(read_rows, folder)
    rows: dict[SplitRole, Rows] = {}
    for name, role in roles.items():
        rows[role] = [*rows.get(role, ()), *read_rows[name]]
    names = folder_names(rows.values()) if read is _class_ids else None
    return _finish(folder, rows, names, options, untrainable)


def _meta_role(name: str) -> SplitRole | None:
    return role_of(name.partition("_")[0])


def _vtab_role(name: str) -> SplitRole | None:
    return role_of(name.rstrip("0123456789"))


def _coop_listing(folder: Path, file: Path, options: Mapping[str, Any]) -> Listing:
    content = _read_json(file)
    if not isinstance(content, dict) or not set(content) <= set(ROLES):
        raise InputError(f"{file} is not an object with the lists train, val and test; get the file again")
    roles, untrainable = assign_roles([name for name in content if content[name]], options, file)
    names: dict[Label, str] = {}
    rows: dict[SplitRole, Rows] = {}
    for name, role in roles.items():
        rows[role] = [*rows.get(role, ()), *_coop_rows(content[name], names, f"{file}, {name}")]
    return _finish(folder, rows, names, options, untrainable)


def _coop_rows(items: Any, names: dict[Label, str], where: str) -> Rows:
    rows = []
    for number, item in enumerate(items if isinstance(items, list) else [None]):
        match item:
            case [str(path), int(label), str(name)]:
                rows.append((plain_path(path).lstrip("/"), label))
            case _:
                raise InputError(f"{where}, item {number}: expected [path, label, class name], found {str(item)[:80]}")
        if names.setdefault(label, name) != name:
            raise InputError(
                f"{where}, item {number}: label {label} is called {name!r} and {names[label]!r}; correct one"
            )
    return rows


def _finish(
    folder: Path,
    rows: Mapping[SplitRole, Rows],
    names: Mapping[Label, str] | None,
    options: Mapping[str, Any],
    untrainable: str,
) -> Listing:
    root, located = _located(folder, rows, options)
    paths = [path for split in located.values() for path, _ in split]
    # Another folder of the images does not help absolute paths.
    require_files(root, paths, folder, "folder" if located is rows else None)
    images = FolderImages(root)
    signatures = images.signatures(paths)
    return make_listing(located, images, folder, names=names, signatures=signatures, untrainable=untrainable)


def _located(
    folder: Path, rows: Mapping[SplitRole, Rows], options: Mapping[str, Any]
) -> tuple[Path, Mapping[SplitRole, Rows]]:
    """Return the folder that images lie below, and the rows with paths relative to it."""
    paths = list(dict.fromkeys(path for split in rows.values() for path, _ in split))
    common, relative = below_common_folder(paths, folder)
    if common is None:
        return _image_root(folder, rows, options), rows
    path_of = dict(zip(paths, relative, strict=True))
    return common, {role: [(path_of[path], label) for path, label in split] for role, split in rows.items()}


def _image_root(folder: Path, rows: Mapping[SplitRole, Rows], options: Mapping[str, Any]) -> Path:
    chosen = text_option(options, "images")
    if chosen is not None:
        require_folder(place(chosen, folder), "images")
        return place(chosen, folder)
    probes = [path for split in rows.values() for path, _ in split[:_PROBED]]
    return find_image_root(folder, probes)


def _read_json(file: Path) -> Any:
    try:
        return parse_json(read_bytes(file))
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}); get the file again") from error
