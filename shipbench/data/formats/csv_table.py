"""``csv:PATH[:IMAGES]``: a table with one row per image, or a table for each split; lists of paths and labels."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shipbench.counts import counted
from shipbench.data.formats.files import (
    SUFFIXES,
    FolderImages,
    below_common_folder,
    is_hidden,
    is_image,
    plain_path,
    require_files,
    require_folder,
)
from shipbench.data.formats.labels import Label, Rows, as_integers, doubt_of, make_listing, quoted_few
from shipbench.data.formats.options import divided, place, require_known, text_option, with_images
from shipbench.data.formats.roles import assign_roles, role_of, role_within, split_columns
from shipbench.data.images import read_bytes
from shipbench.data.listings import ListedSource, Listing, SplitRole
from shipbench.data.signatures import impostor
from shipbench.errors import InputError

KEYS = ("image_column", "label_column", "split_column", "splits", "images", "extension")

IMAGE_COLUMNS = ("image", "file", "filename", "file_name", "path", "filepath", "img", "image_path", "id")
LABEL_COLUMNS = ("label", "class", "target", "category", "y")
SPLIT_COLUMNS = ("split", "set", "subset", "fold", "is_train", "train")

_NEEDED = {"image": IMAGE_COLUMNS, "label": LABEL_COLUMNS}
# Looked for if no column has one of the names above; spaces, hyphens and underscores do not count.
_FURTHER_COLUMNS = {
    "image": (
        *("imagename", "imagefile", "imagefilename", "imageid", "imagepath", "images", "imgpath", "imgname", "imgid"),
        *("filename", "filenames", "filepath", "filepaths", "fname"),
    ),
    "label": ("labels", "labelname", "labelid", "classname", "classlabel", "classid", "targets"),
}
_SWITCHES: dict[str, SplitRole] = {
    "1": "train",
    "1.0": "train",
    "true": "train",
    "0": "test",
    "0.0": "test",
    "false": "test",
}
_TABLE_SUFFIXES = (".csv", ".tsv")
# A line of a list: the path of an image and a label, divided by the last space or tab.
_PAIR = re.compile(r"(.*\S)[ \t]+(\S+)")
_LIST_SUFFIX = ".txt"
_LIST_COLUMNS = {"image": 0, "label": 1}
# The first line with which Excel is told the delimiter.
_DELIMITER_LINE = re.compile(r"\Asep=.\r?\n", re.IGNORECASE)


class CsvTable(ListedSource):
    """The source ``csv``.

    Keys of the task file: ``image_column``, ``label_column``, ``split_column``, ``splits`` (role to value of the split
    column, or to the name of a table), ``images`` (the folder that paths start from, if the location does not name it)
    and ``extension`` (a suffix that the image column lacks, as ``".jpg"``).
    """

    option_names = KEYS

    def list(self, location: str, base: Path, options: Mapping[str, Any]) -> Listing:
        """List the images of a table or a folder of tables; raise ``InputError`` if a column or a file is missing."""
        require_known(options, KEYS, "csv")
        name, images_folder = divided(location, base)
        options = with_images(options, images_folder)
        path = place(name, base)
        tables = [_read_table(file) for file in _table_files(path)]
        single = len(tables) == 1
        labelled, notes = _without_unlabelled([row for table in tables for row in _rows(table, options, single)], path)
        roles = assign_roles((row.split for row in labelled), options, path, _meaning(tables, options))
        used = [row for row in labelled if row.split in roles]
        if left_out := len(labelled) - len(used):
            notes.append(f"left out {counted(left_out, 'row')} of {path} that belong to no split")
        root, names = _resolve([row.image for row in used], tables[0].file.parent, base, options)
        require_files(root, names, path, None if used and Path(used[0].image).is_absolute() else "csv")
        images = FolderImages(root)
        rows = _by_role(used, names, roles)
        doubt = doubt_of((row.label for row in used), path)
        return make_listing(rows, images, path, notes=notes, signatures=images.signatures(names), doubt=doubt)


class _Row(NamedTuple):
    """A row: the name of its split, its image and label as written, and its line."""

    split: str
    image: str
    label: str
    line: int


@dataclass(frozen=True)
class _Table:
    """A table: its file, the index of each column by its name in lower case, and its rows with their lines."""

    file: Path
    columns: Mapping[str, int]
    rows: Sequence[tuple[int, Sequence[str]]]

    def column(self, kind: str, candidates: Sequence[str], options: Mapping[str, Any]) -> str | None:
        """Return the name of the column of a kind; raise ``InputError`` if several could be it."""
        key = f"{kind}_column"
        chosen = text_option(options, key)
        if chosen is not None:
            if chosen.strip().lower() not in self.columns:
                raise InputError(f"{self.file} has no column {chosen!r} ({key}); its columns are {self._listed()}")
            return chosen.strip().lower()
        names = [name for name in candidates if name in self.columns] or self._further(kind)
        if len(names) > 1 and "id" in names:
            # The number of a row, where another column names the file.
            names.remove("id")
        if len(names) > 1:
            raise self._several(kind, names)
        return names[0] if names else None

    def _further(self, kind: str) -> list[str]:
        known = _FURTHER_COLUMNS.get(kind, ())
        return [name for name in self.columns if re.sub(r"[-_ ]", "", name) in known]

    def split_column(self, options: Mapping[str, Any]) -> str | None:
        """Return the name of the split column: by its name, else the one that holds nothing but names of splits.

        Raises ``InputError`` if several could be it.
        """
        column = self.column("split", SPLIT_COLUMNS, options)
        if column is not None:
            return column
        image, label = (self.column(kind, names, options) for kind, names in _NEEDED.items())
        taken = {image, label, *LABEL_COLUMNS}
        others = {name: self.values(name) for name in self.columns if name not in taken}
        found = split_columns(others, options, self.file)
        if len(found) > 1:
            raise self._several("split", found)
        return found[0] if found else None

    def _several(self, kind: str, names: Sequence[str]) -> InputError:
        return InputError(
            f"{self.file} has several columns that could be the {kind} ({', '.join(names)}); "
            f'choose in the task file: {kind}_column = "{names[0]}"'
        )

    def required_column(self, kind: str, candidates: Sequence[str], options: Mapping[str, Any]) -> str:
        """Return the name of the column of a kind; raise ``InputError`` if none or several could be it."""
        name = self.column(kind, candidates, options)
        if name is None:
            raise InputError(
                f"{self.file} has no column for the {kind} (its columns are {self._listed()}); "
                f'name it in the task file: {kind}_column = "..."'
            )
        return name

    def values(self, name: str) -> list[str]:
        """Return the values of a column without surrounding spaces."""
        index = self.columns[name]
        return [row[index].strip() for _, row in self.rows]

    def _listed(self) -> str:
        return quoted_few(list(self.columns), 20)


def _table_files(path: Path) -> list[Path]:
    """Return the tables at ``path``: one, or one for each split."""
    if path.is_file():
        siblings = _split_lists if path.suffix.lower() == _LIST_SUFFIX else _split_tables
        tables = siblings(path.parent) if role_of(path.stem) else []
        return tables if path in tables else [path]
    if not path.exists():
        raise InputError(f"csv: {path} does not exist; name the file that lists the images")
    require_folder(path, "csv")
    if tables := _split_tables(path):
        return tables
    tables = _visible_tables(path)
    if len(tables) > 1:
        names = quoted_few([file.name for file in tables])
        raise InputError(f"{path} holds several tables ({names}); name one, as in csv:{tables[0]}")
    tables = tables or _split_lists(path)
    if not tables:
        raise InputError(f"{path} holds no table (.csv); name the file, as in csv:labels.csv")
    return tables


def _split_tables(folder: Path) -> list[Path]:
    """Return the tables named after splits if one of them is train."""
    tables = [file for file in _visible_tables(folder) if role_within(file.stem)]
    return tables if any(role_within(file.stem) == "train" for file in tables) else []


def _split_lists(folder: Path) -> list[Path]:
    """Return the lists of paths and labels named after splits if one of them is train."""
    files = [file for file in _visible_files(folder, (_LIST_SUFFIX,)) if role_within(file.stem)]
    lists = [file for file in files if file.is_file() and _pair(_first_line(file))]
    if not any(role_within(file.stem) == "train" for file in lists):
        return []
    bare = [file.name for file in files if file not in lists and file.is_file() and is_image(_first_line(file).strip())]
    if bare:
        raise InputError(
            f"{folder}: {quoted_few(bare)} {'lists' if len(bare) == 1 else 'list'} images without labels; add a label "
            "to each line, or move the labelled lists to a folder of their own"
        )
    return lists


def _first_line(file: Path) -> str:
    with file.open("rb") as stream:
        return next((line for line in stream if line.strip()), b"").decode("utf-8-sig", "replace")


def _pair(line: str) -> tuple[str, str] | None:
    """Return the path and the label in a line of a list; None for another line, as the header of a table."""
    match = _PAIR.fullmatch(line.strip())
    return (match[1], match[2]) if match and is_image(match[1]) else None


def _visible_tables(folder: Path) -> list[Path]:
    return _visible_files(folder, _TABLE_SUFFIXES)


def _visible_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files with some suffixes, without the ``._train.csv`` that macOS stores beside a ``train.csv``."""
    return [file for file in sorted(folder.iterdir()) if file.suffix.lower() in suffixes and not is_hidden(file.name)]


def _read_table(file: Path) -> _Table:
    content = read_bytes(file)
    try:
        text = _DELIMITER_LINE.sub("\n", content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        clause = impostor(content, "save it as CSV") or "is not UTF-8 text; save it as UTF-8"
        raise InputError(f"{file} {clause}") from error
    header = next((line for line in text.splitlines() if line.strip()), "")
    if _pair(header):
        return _Table(file, _LIST_COLUMNS, _list_rows(file, text))
    delimiter = next((mark for mark in (",", ";", "\t") if mark in header), ",")
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}; correct the line") from error
    if not lines:
        raise InputError(f"{file} is empty; write a header and one line per image")
    (_, names), *rows = lines
    _check_shape(file, names, rows)
    return _Table(file, {name.strip().lower(): index for index, name in enumerate(names)}, rows)


def _list_rows(file: Path, text: str) -> list[tuple[int, Sequence[str]]]:
    """Return the rows of a list with their lines; raise ``InputError`` for a line of another form."""
    rows: list[tuple[int, Sequence[str]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        pair = _pair(line)
        if pair is not None:
            rows.append((number, pair))
        elif line.strip():
            raise InputError(f"{file}, line {number}: expected a path, a space and a label, found {line[:120]!r}")
    return rows


def _check_shape(file: Path, names: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]]) -> None:
    if any(is_image(name.strip()) for name in names):
        raise InputError(f"{file} has no header; name its columns in the first line, as in image,label")
    lower = [name.strip().lower() for name in names]
    repeated = next((name for name in lower if name and lower.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{file} has several columns called {repeated!r}; rename one")
    odd = next(((line, row) for line, row in rows if len(row) != len(names)), None)
    if odd is not None:
        shape = f"{counted(len(odd[1]), 'value')} for {counted(len(names), 'column')}"
        raise InputError(f"{file}, line {odd[0]} has {shape}; correct the line")
    if not rows:
        raise InputError(f"{file} has a header but no rows; write one line per image")


def _rows(table: _Table, options: Mapping[str, Any], single: bool) -> list[_Row]:
    """Return the rows of a table; its name is their split unless it is the only table."""
    image = table.required_column("image", IMAGE_COLUMNS, options)
    images = table.values(image)
    if not single and role_within(table.file.stem) != "train" and _has_no_label(table, options):
        labels = [""] * len(images)
    else:
        labels = table.values(table.required_column("label", LABEL_COLUMNS, options))
    column = table.split_column(options) if single else None
    splits = (
        [value.lower() for value in table.values(column)]
        if column
        else ["train" if single else table.file.stem] * len(images)
    )
    lines = [line for line, _ in table.rows]
    rows = [_Row(*values) for values in zip(splits, images, labels, lines, strict=True)]
    _check_rows(table.file, rows)
    return rows


def _has_no_label(table: _Table, options: Mapping[str, Any]) -> bool:
    names = (text_option(options, "label_column") or "", *LABEL_COLUMNS)
    return not any(name.strip().lower() in table.columns for name in names)


def _check_rows(file: Path, rows: Sequence[_Row]) -> None:
    for kind, empty in (
        ("split", [row.line for row in rows if not row.split]),
        ("image", [row.line for row in rows if not row.image]),
    ):
        if empty:
            count = counted(len(empty), "row")
            raise InputError(
                f"{file} has {count} without a value for the {kind}, the first in line {empty[0]}; fill it"
            )
    lists = [row for row in rows if ";" in row.label]
    if lists:
        raise InputError(
            f"{file}, line {lists[0].line}: {lists[0].label!r} is a list of labels; shipbench trains classifiers with "
            "one label per image, so leave such images out or choose another label_column"
        )
    address = next((row for row in rows if "://" in row.image), None)
    if address is not None:
        raise InputError(
            f"{file}, line {address.line}: {address.image!r} is an address, not a file; download the images"
        )


def _without_unlabelled(rows: Sequence[_Row], path: Path) -> tuple[list[_Row], list[str]]:
    """Drop splits without any label; raise ``InputError`` if single rows have none."""
    labelled_splits = {row.split for row in rows if row.label}
    unlabelled_splits = sorted({row.split for row in rows} - labelled_splits)
    labelled = [row for row in rows if row.split in labelled_splits]
    empty = [row for row in labelled if not row.label]
    if empty:
        images = f"{counted(len(empty), 'row')} without a label, such as {empty[0].image} (line {empty[0].line})"
        raise InputError(f"{path} has {images}; label the images or leave them out")
    return labelled, [f"{name} in {path} has no labels and is left out" for name in unlabelled_splits]


def _meaning(tables: Sequence[_Table], options: Mapping[str, Any]) -> Callable[[str], SplitRole | None]:
    """Return what the name of a split stands for: the name of a table, or a value of the split column."""
    if len(tables) > 1:
        return role_within
    column = tables[0].split_column(options)
    if column in ("is_train", "train"):
        return lambda value: _SWITCHES.get(value.lower())
    return role_of


def _resolve(images: Sequence[str], folder: Path, base: Path, options: Mapping[str, Any]) -> tuple[Path, list[str]]:
    """Return the folder that images lie below and their paths relative to it, with the suffixes of files."""
    chosen = text_option(options, "images")
    root = place(chosen, base) if chosen is not None else folder
    require_folder(root, "images")
    common, images = below_common_folder(images, folder)
    root = root if common is None else common
    suffix = _extension(root, images, options)
    return root, [plain_path(image) + suffix for image in images]


def _extension(root: Path, images: Sequence[str], options: Mapping[str, Any]) -> str:
    chosen = text_option(options, "extension")
    if chosen is not None:
        return chosen if chosen.startswith(".") else f".{chosen}"
    if any(is_image(image) for image in images):
        return ""
    first = root / plain_path(images[0])
    beside = first.parent.glob(f"{glob.escape(first.name)}.*") if first.parent.is_dir() else ()
    suffixes = sorted(
        file.name[len(first.name) :] for file in beside if file.name[len(first.name) :].lower() in SUFFIXES
    )
    if len(suffixes) > 1:
        raise InputError(
            f"{images[0]} exists with the suffixes {' and '.join(suffixes)}; "
            f'choose in the task file: extension = "{suffixes[0]}"'
        )
    return suffixes[0] if suffixes else ""


def _by_role(rows: Sequence[_Row], paths: Sequence[str], roles: Mapping[str, SplitRole]) -> dict[SplitRole, Rows]:
    """Return paths and labels by role; labels are integers if every label is one."""
    integers = as_integers({row.label for row in rows}) or {}
    by_role: dict[SplitRole, list[tuple[str, Label]]] = {}
    for row, path in zip(rows, paths, strict=True):
        by_role.setdefault(roles[row.split], []).append((path, integers.get(row.label, row.label)))
    return {**by_role}
