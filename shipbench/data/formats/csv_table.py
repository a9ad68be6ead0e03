"""``csv:PATH[:IMAGES]``: a table with one row per image, or a table for each split; lists of paths and labels."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shipbench.counts import counted, named_few
from shipbench.data.formats.files import FolderImages, plain_path
from shipbench.data.formats.labels import Label, Rows, Split, as_integers, doubt_of, make_listing, require_one_numbering
from shipbench.data.formats.listed_paths import locate
from shipbench.data.formats.options import divided, place, require_known, text_option, with_images
from shipbench.data.formats.roles import assign_roles, of_column, role_within
from shipbench.data.formats.table_columns import IMAGE_COLUMNS, Table, meaning_of
from shipbench.data.formats.table_files import read_table, table_files
from shipbench.data.listings import ListedSource, Listing
from shipbench.errors import InputError

KEYS = ("image_column", "label_column", "split_column", "splits", "images", "extension")


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
        tables = [read_table(file) for file in _files(path, options)]
        single = len(tables) == 1
        labelled, notes = _without_unlabelled([row for table in tables for row in _rows(table, options, single)], path)
        notes += _origins(tables, options, path)
        column = tables[0].split_column(options) if single else None
        # The name of a split is a value of the split column, or the name of a table.
        meaning = meaning_of(column) if single else role_within
        named = (row.split for row in labelled)
        roles, untrainable = assign_roles(named, options, of_column(column, path), meaning)
        used = [row for row in labelled if row.split in roles]
        if not single:
            require_one_numbering(_by_role(used, [row.image for row in used], {name: name for name in roles}), path)
        if left_out := len(labelled) - len(used):
            notes.append(f"left out {counted(left_out, 'row')} of {path} that belong to no split")
        located = locate([row.image for row in used], path, path if path.is_dir() else path.parent, base, options)
        images = FolderImages(located.root)
        rows = _by_role(used, located.paths, roles)
        return make_listing(
            rows,
            images,
            path,
            notes=[*notes, *located.notes],
            signatures=images.signatures(located.paths),
            doubt=doubt_of((row.label for row in used), path),
            untrainable=untrainable,
        )


def _files(path: Path, options: Mapping[str, Any]) -> list[Path]:
    """Return the tables to read: a table that the task file names the split column of is read alone."""
    if text_option(options, "split_column") is None:
        return table_files(path)
    files = [path] if path.is_file() else table_files(path)
    if len(files) > 1:
        train = next((file for file in files if role_within(file.stem) == "train"), files[0])
        raise InputError(
            f"{path} has a table for each split, so split_column means nothing; remove it, or name the table that has "
            f"the column, as in csv:{train}"
        )
    return files


class _Row(NamedTuple):
    """A row: the name of its split, its image and label as written, and its line."""

    split: str
    image: str
    label: str
    line: int


def _rows(table: Table, options: Mapping[str, Any], single: bool) -> list[_Row]:
    """Return the rows of a table; its name is their split unless it is the only table."""
    image = table.required_column("image", IMAGE_COLUMNS, options)
    images = table.values(image)
    if not single and table.split != table.file.stem:
        images = [posixpath.join(table.split, plain_path(path)) if path else path for path in images]
    if not single and role_within(table.split) != "train" and not table.has_label(options):
        labels = [""] * len(images)
    else:
        labels = table.labels(options)
    column = table.split_column(options) if single else None
    splits = (
        [value.lower() for value in table.values(column)]
        if column
        else ["train" if single else table.split] * len(images)
    )
    lines = [line for line, _ in table.rows]
    rows = [_Row(*values) for values in zip(splits, images, labels, lines, strict=True)]
    _check_rows(table.file, rows, may_be_addresses="images" in options)
    return rows


def _origins(tables: Sequence[Table], options: Mapping[str, Any], path: Path) -> list[str]:
    """Return notes on classes that are columns of a table, or the folders of images."""
    notes = []
    if classes := tables[0].class_columns(options):
        names = [tables[0].header[tables[0].columns[name]].strip() for name in classes]
        notes.append(f"the classes of {path} are its columns {named_few(names, 20)}, of which each image has one")
    if not all(table.has_labels for table in tables):
        files = ", ".join(table.file.name for table in tables)
        have = "has" if len(tables) == 1 else "have"
        notes.append(f"{files} in {tables[0].file.parent} {have} no labels, so the folder of an image is its class")
    return notes


def _check_rows(file: Path, rows: Sequence[_Row], *, may_be_addresses: bool) -> None:
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
    if address is not None and not may_be_addresses:
        raise InputError(
            f"{file}, line {address.line}: {address.image!r} is an address, not a file; download the images and name "
            f"their folder, as in csv:{file}:FOLDER"
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


def _by_role(rows: Sequence[_Row], paths: Sequence[str], roles: Mapping[str, Split]) -> dict[Split, Rows]:
    """Return paths and labels by role; labels are integers if every label is one."""
    integers = as_integers({row.label for row in rows}) or {}
    by_role: dict[Split, list[tuple[str, Label]]] = {}
    for row, path in zip(rows, paths, strict=True):
        by_role.setdefault(roles[row.split], []).append((path, integers.get(row.label, row.label)))
    return {**by_role}
