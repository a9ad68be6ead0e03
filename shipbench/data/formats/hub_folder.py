"""Image folders of the ``datasets`` library whose labels are in files called ``metadata``."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shipbench.data.formats.files import FolderImages, is_hidden, plain_path, require_files
from shipbench.data.formats.image_folder import METADATA_SUFFIXES
from shipbench.data.formats.labels import Label, as_integers, make_listing, quoted_few
from shipbench.data.formats.options import text_option
from shipbench.data.formats.roles import assign_roles, role_of, role_within, split_columns
from shipbench.data.images import read_bytes
from shipbench.data.listings import Listing, SplitRole
from shipbench.errors import InputError

LABEL_COLUMNS = ("label", "labels", "class", "target", "category")

_FILE = "file_name"


def has_metadata(folder: Path) -> bool:
    """Return whether a file called ``metadata`` lies in ``folder`` or below."""
    return folder.is_dir() and bool(_metadata_files(folder))


def list_metadata(folder: Path, options: Mapping[str, Any]) -> Listing:
    """List the images that the metadata files name, each relative to its file.

    Splits are those of the folders on the way to an image, else of a column; without one, every image is train. Raises
    ``InputError`` if a column has to be chosen, and if images are missing.
    """
    files = _metadata_files(folder)
    kinds = sorted({file.suffix for file in files})
    if len(kinds) > 1:
        raise InputError(f"{folder} holds metadata as {' and '.join(kinds)}; keep one kind")
    records = [(file, record) for file in files for record in _records(file)]
    if not records:
        raise InputError(f"{files[0]} lists no image; write a line per image")
    image = _image_column(records[0][1], options, files[0])
    label = _label_column(records[0][1], options, files[0])
    pairs = [(_path(folder, file, record, image), _label(file, record, label)) for file, record in records]
    splits = _splits([record for _, record in records], [path for path, _ in pairs], label, files[0])
    roles = assign_roles(dict.fromkeys(splits), options, folder, role_within)
    used = [(split, *pair) for split, pair in zip(splits, pairs, strict=True) if split in roles]
    require_files(folder, (path for _, path, _ in used), folder)
    rows: dict[SplitRole, list[tuple[str, Label]]] = {}
    integers = as_integers({value for _, _, value in used}) or {}
    for split, path, value in used:
        rows.setdefault(roles[split], []).append((path, integers.get(value, value)))
    images = FolderImages(folder)
    return make_listing(rows, images, folder, signatures=images.signatures(path for _, path, _ in used))


def _metadata_files(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("metadata.*") if file.suffix in METADATA_SUFFIXES)
    return sorted(file for file in files if not any(map(is_hidden, file.relative_to(folder).parts)))


def _records(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        records: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return records
    text = read_bytes(file).decode("utf-8-sig", "replace")
    if file.suffix == ".csv":
        return list(csv.DictReader(text.splitlines(keepends=True)))
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"{file} has a line that is not JSON: {error}") from error


def _image_column(record: Mapping[str, Any], options: Mapping[str, Any], file: Path) -> str:
    names = [name for name in record if name == _FILE or name.endswith(f"_{_FILE}")]
    return _choose("image", names, list(record), options, file)


def _label_column(record: Mapping[str, Any], options: Mapping[str, Any], file: Path) -> str:
    others = [name for name in record if not name.endswith(_FILE)]
    names = others if len(others) == 1 else [name for name in others if name.lower() in LABEL_COLUMNS]
    return _choose("label", names, others, options, file)


def _choose(kind: str, names: list[str], columns: list[str], options: Mapping[str, Any], file: Path) -> str:
    key = f"{kind}_column"
    chosen = text_option(options, key)
    if chosen is not None and chosen not in columns:
        raise InputError(f"{file} has no column {chosen!r} ({key}); its columns are {quoted_few(columns, 20)}")
    if chosen is None and len(names) != 1:
        what = f"several columns for the {kind} ({', '.join(names)})" if names else f"no column for the {kind}"
        listed = quoted_few(columns, 20) or "none"
        raise InputError(f'{file} has {what}; its columns are {listed}: choose in the task file: {key} = "..."')
    return chosen or names[0]


def _path(folder: Path, file: Path, record: Mapping[str, Any], column: str) -> str:
    value = record.get(column)
    if not value:
        raise InputError(f"{file} has a line without a {column}; complete it")
    return plain_path(str(Path(file.parent.relative_to(folder).as_posix(), str(value))))


def _label(file: Path, record: Mapping[str, Any], column: str) -> str:
    value = record.get(column)
    if value is None or isinstance(value, list | dict) or str(value).strip() == "":
        raise InputError(f"{file}: {record} has no single {column}; label the image or leave it out")
    return str(value).strip()


def _splits(records: Sequence[Mapping[str, Any]], paths: Sequence[str], label: str, file: Path) -> list[str]:
    """Return the split of each image: the first folder on the way to it that is named after a split, else ``train``.

    Without such a folder, a column that holds nothing but names of splits decides. Raises ``InputError`` if several do.
    """
    named = [_split_folder(path) for path in paths]
    if any(named):
        return [name or "train" for name in named]
    others = [name for name in records[0] if name != label]
    columns = {name: [str(record.get(name, "")) for record in records] for name in others}
    found = split_columns(columns)
    if len(found) > 1:
        raise InputError(f"{file} has several columns of splits ({', '.join(found)}); leave one of them out")
    return columns[found[0]] if found else ["train"] * len(paths)


def _split_folder(path: str) -> str | None:
    folders = path.split("/")[:-1]
    named = [name for name in folders if role_of(name)] or [name for name in folders if role_within(name)]
    return named[0] if named else None
