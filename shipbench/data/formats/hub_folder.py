"""Image folders of the ``datasets`` library whose labels are in files called ``metadata``."""

from __future__ import annotations

import csv
import io
import math
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from shipbench.counts import counted, named_few
from shipbench.data.formats.arrow_tables import reading_parquet
from shipbench.data.formats.files import FolderImages, is_image, plain_path, require_files, visible_files
from shipbench.data.formats.image_folder import METADATA_SUFFIXES
from shipbench.data.formats.labels import Label, as_integers, doubt_of, make_listing
from shipbench.data.formats.options import text_option
from shipbench.data.formats.roles import assign_roles, of_column, role_of, role_within, split_columns
from shipbench.data.images import read_bytes
from shipbench.data.listings import Listing, SplitRole
from shipbench.errors import InputError
from shipbench.runtime.json_text import parse_json

LABEL_COLUMNS = ("label", "labels", "class", "target", "category")

_FILE = "file_name"
# What the hub writes for every image of a split whose labels are withheld.
_WITHHELD = frozenset({"-1", "-1.0"})

# Split, path and label of an image as written.
_Row: TypeAlias = tuple[str, str, str]
# A metadata file and what one of its lines says.
_Record: TypeAlias = tuple[Path, Mapping[str, Any]]


def has_metadata(folder: Path) -> bool:
    """Return whether a file called ``metadata`` lies in ``folder`` or below."""
    return folder.is_dir() and any(map(_is_metadata, visible_files(folder)))


def list_metadata(folder: Path, options: Mapping[str, Any]) -> Listing:
    """List the images that the metadata files name, each relative to its file.

    Splits are those of the folders on the way to an image, else of a column; without one, every image is train. Raises
    ``InputError`` if a column has to be chosen, and if images are missing.
    """
    visible = [path for path in visible_files(folder) if is_image(path) or _is_metadata(path)]
    files = sorted(folder / path for path in visible if _is_metadata(path))
    kinds = sorted({file.suffix for file in files})
    if len(kinds) > 1:
        raise InputError(f"{folder} holds metadata as {' and '.join(kinds)}; keep one kind")
    records = [(file, record) for file in files for record in _records(file)]
    if not records:
        raise InputError(f"{files[0]} lists no image; write a line per image")
    folders = {file: file.parent.relative_to(folder).as_posix() for file in files}
    label = _choose("label", _label_columns, [record for _, record in records], options, files[0])
    rows, column = _rows(records, folders, label, options)
    labelled, notes = _labelled(rows, folder)
    if not labelled:
        raise InputError(f"{folder} has no label in the column {label!r}; label the images")
    splits = dict.fromkeys(split for split, _, _ in labelled)
    roles, untrainable = assign_roles(splits, options, of_column(column, folder), role_within)
    used = [row for row in labelled if row[0] in roles]
    if left_out := len(labelled) - len(used):
        notes.append(f"left out {counted(left_out, 'image')} of {folder} that belong to no split")
    listed = {path for file, record in records for path in _listed_paths(folders[file], record)}
    if unlisted := sum(is_image(path) and path not in listed for path in visible):
        notes.append(f"left out {counted(unlisted, 'image')} of {folder} that no metadata lists")
    doubt = doubt_of((value for _, _, value in used), folder)
    require_files(folder, (path for _, path, _ in used), folder)
    by_role: dict[SplitRole, list[tuple[str, Label]]] = {}
    integers = as_integers({value for _, _, value in used}) or {}
    for split, path, value in used:
        by_role.setdefault(roles[split], []).append((path, integers.get(value, value)))
    images = FolderImages(folder)
    signatures = images.signatures(path for _, path, _ in used)
    return make_listing(
        by_role, images, folder, notes=notes, signatures=signatures, doubt=doubt, untrainable=untrainable
    )


def _rows(
    records: Sequence[_Record], folders: Mapping[Path, str], label: str, options: Mapping[str, Any]
) -> tuple[list[_Row], str | None]:
    """Return split, path and label of each record, and the column that holds the splits, if one does.

    ``folders`` are those of the metadata files, as texts.
    """
    first, everything = records[0][0], [record for _, record in records]
    image = _choose("image", _image_columns, everything, options, first)
    paths = [_path(folders[file], file, record, image) for file, record in records]
    labels = [_label(file, record, label) for file, record in records]
    splits, column = _splits(everything, paths, label, options, first)
    return list(zip(splits, paths, labels, strict=True)), column


def _is_metadata(path: str) -> bool:
    name = posixpath.basename(path)
    return name.startswith("metadata.") and name.endswith(METADATA_SUFFIXES)


def _listed_paths(folder: str, record: Mapping[str, Any]) -> list[str]:
    """Return the files that a record names, its masks for example, and not only the image of the task."""
    return [_joined(folder, value) for name, value in record.items() if name.endswith(_FILE) and value]


def _labelled(rows: Sequence[_Row], folder: Path) -> tuple[list[_Row], list[str]]:
    """Return the rows with a label, and notes on the others: empty ones, and those of a split of nothing but -1."""
    given: dict[str, set[str]] = {}
    for split, _, value in rows:
        given.setdefault(split, set()).add(value)
    withheld = {split for split, values in given.items() if values <= _WITHHELD | {""}}
    labelled = [row for row in rows if row[2] and row[0] not in withheld]
    total, kept = (Counter(split for split, _, _ in part) for part in (rows, labelled))
    notes = []
    for split, number in total.items():
        if not kept[split]:
            notes.append(f"{split} in {folder} has no labels and is left out")
        elif unlabelled := number - kept[split]:
            notes.append(f"left out {counted(unlabelled, 'image')} of {split} in {folder} without a label")
    return labelled, notes


def _records(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        with reading_parquet(file):
            records: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return records
    try:
        text = read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text; save it as UTF-8") from error
    return _csv_records(file, text) if file.suffix == ".csv" else _json_records(file, text)


def _csv_records(file: Path, text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    records: list[dict[str, Any]] = []
    try:
        for record in reader:
            # DictReader keeps surplus values under the key None, and gives None to columns without a value.
            if None in record or None in record.values():
                raise InputError(f"{file}, line {reader.line_num} has too many or too few values; correct the line")
            records.append({**record})
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}; correct the line") from error
    return records


def _json_records(file: Path, text: str) -> list[dict[str, Any]]:
    try:
        # Texts of JSON may hold the further line ends that splitlines knows.
        records = [parse_json(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise InputError(f"{file} has a line that is not JSON: {error}; correct the line") from error
    odd = [record for record in records if not isinstance(record, dict)]
    if odd:
        raise InputError(f"{file} has the line {str(odd[0])[:60]!r}, which is not a JSON object; correct the line")
    return records


def _image_columns(columns: Iterable[str]) -> list[str]:
    return [name for name in columns if name == _FILE or name.endswith(f"_{_FILE}")]


def _label_columns(columns: Iterable[str]) -> list[str]:
    others = [name for name in columns if not name.endswith(_FILE)]
    return others if len(others) == 1 else [name for name in others if name.lower() in LABEL_COLUMNS]


def _choose(
    kind: str,
    candidates: Callable[[Iterable[str]], list[str]],
    records: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    file: Path,
) -> str:
    """Return the column of a kind: the one that the task file names, else that of the first record.

    The records of a split without labels lack a column, so all of them count if the first has none of the kind.
    """
    key = f"{kind}_column"
    chosen = text_option(options, key)
    names = candidates(records[0])
    if chosen is None and len(names) == 1:
        return names[0]
    union = dict.fromkeys(name for record in records for name in record)
    columns = [name for name in union if kind == "image" or not name.endswith(_FILE)]
    names = names or candidates(columns)
    if chosen is not None and chosen not in columns:
        raise InputError(f"{file} has no column {chosen!r} ({key}); its columns are {named_few(columns, 20)}")
    if chosen is None and len(names) != 1:
        what = f"several columns for the {kind} ({', '.join(names)})" if names else f"no column for the {kind}"
        listed = named_few(columns, 20) or "none"
        raise InputError(f'{file} has {what}; its columns are {listed}: choose in the task file: {key} = "..."')
    return chosen or names[0]


def _path(folder: str, file: Path, record: Mapping[str, Any], column: str) -> str:
    value = record.get(column)
    if not value:
        raise InputError(f"{file} has a line without a {column}; complete it")
    return _joined(folder, value)


def _joined(folder: str, value: object) -> str:
    return plain_path(posixpath.join(folder, str(value)))


def _label(file: Path, record: Mapping[str, Any], column: str) -> str:
    value = record.get(column)
    if isinstance(value, list | dict):
        raise InputError(f"{file}: {record} has no single {column}; label the image or leave it out")
    # Programs write a missing number as NaN.
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value).strip()


def _splits(
    records: Sequence[Mapping[str, Any]], paths: Sequence[str], label: str, options: Mapping[str, Any], file: Path
) -> tuple[list[str], str | None]:
    """Return the split of each image: the first folder on the way to it that is named after a split, else ``train``.

    Without such a folder, a column that holds nothing but names of splits decides, and is returned as well. Raises
    ``InputError`` if several do.
    """
    named = [_split_folder(path) for path in paths]
    if any(named):
        return [name or "train" for name in named], None
    others = dict.fromkeys(name for record in records for name in record if name != label)
    columns = {name: [str(record.get(name, "")) for record in records] for name in others}
    found = split_columns(columns, options, file)
    if len(found) > 1:
        raise InputError(f"{file} has several columns of splits ({', '.join(found)}); leave one of them out")
    return (columns[found[0]], found[0]) if found else (["train"] * len(paths), None)


def _split_folder(path: str) -> str | None:
    folders = path.split("/")[:-1]
    named = [name for name in folders if role_of(name)] or [name for name in folders if role_within(name)]
    return named[0] if named else None
