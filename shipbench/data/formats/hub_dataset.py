"""``hf:NAME[:CONFIG]``: data sets of the Hugging Face hub, and the same layouts in a local folder.

A name goes through the ``datasets`` library (the extra ``shipbench[hub]``); local Parquet files, saved data sets and
image folders are read directly. Code that comes with a data set is never run.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shipbench.counts import counted, named_few
from shipbench.data.formats.arrow_tables import ImageTable, TableImages, entry_name, image_columns, label_columns
from shipbench.data.formats.hub_download import download_tables
from shipbench.data.formats.hub_folder import has_metadata, list_metadata
from shipbench.data.formats.hub_layout import HubTables, parquet_tables, saved_tables
from shipbench.data.formats.image_folder import list_folder
from shipbench.data.formats.labels import Label, Rows, doubt_of, make_listing
from shipbench.data.formats.options import divided, place, require_known, text_option
from shipbench.data.formats.roles import assign_roles, of_column, role_of, split_columns
from shipbench.data.formats.table_columns import IMAGE_COLUMNS
from shipbench.data.formats.tar_shards import list_shards
from shipbench.data.listings import ListedSource, Listing, SplitRole
from shipbench.errors import InputError

KEYS = ("config", "image_column", "label_column", "splits", "revision")

LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
# What tables of shards of WebDataset call it; it counts where no column has one of the names above.
_SHARD_LABEL = ("cls",)
# Files of data sets on a disk, which no data set of the hub is called after.
_FILES = (".parquet", ".arrow", ".tar", ".tar.gz", ".tgz", ".zip")
_SPLIT_COLUMNS = ("split", "set", "subset", "fold", "partition")


class HubDataset(ListedSource):
    """The source ``hf``.

    Keys of the task file: ``config``, ``image_column``, ``label_column``, ``splits`` (role to name of a split) and
    ``revision`` (of the repository on the hub).
    """

    option_names = KEYS

    def list(self, location: str, base: Path, options: Mapping[str, Any]) -> Listing:
        """List the images of a local data set, or of one on the hub, which is downloaded and cached first.

        Raises ``InputError`` if the data set does not exist, needs a licence or cannot be reached, and if the task file
        must choose a configuration, a column or the role of a split.
        """
        require_known(options, KEYS, "hf")
        name, config = divided(location, base)
        config = text_option(options, "config") or config
        local = place(name, base)
        if not local.exists():
            _refuse_missing_path(name, local)
            return _table_listing(download_tables(name, config, text_option(options, "revision")), options, name)
        if has_metadata(local):
            return list_metadata(local, options)
        tables = saved_tables(local) or parquet_tables(local, config)
        if tables is not None:
            return _table_listing(tables, options, local)
        if shards := list_shards(local, options):
            return shards
        if local.is_file():
            raise InputError(f"hf:{name}: {local} is not a Parquet file; name one, or the folder of a data set")
        listing = list_folder(local, {key: value for key, value in options.items() if key == "splits"})
        if column := next((key for key in ("image_column", "label_column") if key in options), None):
            raise InputError(
                f"{local} is read by its class folders, so {column!r} means nothing; remove it, or name the table that "
                "has the column, as in csv:labels.csv"
            )
        return listing


def _refuse_missing_path(name: str, path: Path) -> None:
    starts_as_path = name.startswith(("/", "./", "../", "~"))
    if starts_as_path or name.lower().endswith(_FILES) or name.count("/") > 1 or not name:
        raise InputError(f"hf:{name}: {path} does not exist; name a folder, or a data set as in hf:OWNER/NAME")


def _table_listing(source: HubTables, options: Mapping[str, Any], where: object) -> Listing:
    tables = {split: table for split, table in source.tables.items() if sum(table.counts)}
    if not tables:
        raise InputError(f"{where} holds no rows; choose another data set")
    schema = _fullest(tables)
    image = _image_column(source, schema, options, where)
    label = _label_column(source, schema, options, where)
    labels, notes = _labels(tables, label, where)
    column = _split_column(tables, options, where)
    if column is not None:
        labels = _by_column(next(iter(tables.values())), labels, column)
    roles, untrainable = assign_roles(labels, options, of_column(column, where))
    if left_out := [split for split in labels if split not in roles]:
        notes.append(f"left out {counted(len(left_out), 'split')} of {where}: {named_few(left_out)}")
    names = _class_names({split: tables[split] for split in roles if split in tables}, label, where)
    images = TableImages(tables, image, source.folder)
    rows: dict[SplitRole, Rows] = {}
    signatures: dict[str, Path] = {}
    for split, role in roles.items():
        # A single table holds the splits that its column names.
        place_of_rows = split if split in tables else next(iter(tables))
        if image not in tables[place_of_rows].schema.names:
            raise InputError(f"{split} in {where} has no column {image!r}, which holds the images; get it again")
        named = [(entry_name(place_of_rows, row), value) for row, value in labels[split]]
        rows[role] = [*rows.get(role, ()), *named]
        holders = images.holders(place_of_rows, [row for row, _ in labels[split]])
        signatures |= {name: holder for (name, _), holder in zip(named, holders, strict=True)}
    titles = _titles(names or source.features.classes.get(label), rows, where, notes)
    doubt = doubt_of((value for each in labels.values() for _, value in each if isinstance(value, str)), where)
    listing = make_listing(
        rows,
        images,
        where,
        names=titles,
        notes=notes,
        signatures=signatures,
        doubt=doubt,
        untrainable=untrainable,
    )
    return replace(listing, column=image)


def _fullest(tables: Mapping[str, ImageTable]) -> Any:
    """Return the schema of train, else of the split with the most columns: those without labels lack one."""
    schemas = [(role_of(split) == "train", len(table.schema.names), table.schema) for split, table in tables.items()]
    return max(schemas, key=lambda item: item[:2])[2]


def _image_column(source: HubTables, schema: Any, options: Mapping[str, Any], where: object) -> str:
    chosen = _chosen("image_column", schema, options, where)
    columns = [name for name in source.features.images if name in schema.names] or image_columns(schema, IMAGE_COLUMNS)
    if len(columns) > 1:
        # The number of a row, where another column names the file.
        columns = [name for name in columns if name.lower() != "id"]
    return chosen or _only(columns, "image", schema, where, IMAGE_COLUMNS)


def _label_column(source: HubTables, schema: Any, options: Mapping[str, Any], where: object) -> str:
    chosen = _chosen("label_column", schema, options, where)
    columns = [name for name in source.features.classes if name in schema.names]
    if chosen in source.features.label_lists or (source.features.label_lists and not chosen and not columns):
        lists = named_few(source.features.label_lists)
        raise InputError(f"{where} has several labels per image ({lists}); shipbench trains with one label per image")
    columns = columns or label_columns(schema, LABEL_COLUMNS) or label_columns(schema, _SHARD_LABEL)
    return chosen or _only(columns, "label", schema, where, LABEL_COLUMNS)


def _class_names(tables: Mapping[str, ImageTable], label: str, where: object) -> tuple[str, ...] | None:
    """Return the class names of tables that say them; raise ``InputError`` if a number is another class in another."""
    named = {split: table.features().classes.get(label) for split, table in tables.items()}
    known = {split: names for split, names in named.items() if names}
    first = next(iter(known), "")
    if other := next((split for split, names in known.items() if names != known[first]), None):
        raise InputError(
            f"the splits {first} and {other} of {where} number the classes of {label!r} differently; save them with "
            "the same names of classes in the same order"
        )
    return known.get(first)


def _titles(
    names: Sequence[str] | None, rows: Mapping[SplitRole, Rows], where: object, notes: list[str]
) -> dict[Label, str] | None:
    """Return the class name of each number; None, with a note, if the names are those of other labels."""
    titles: dict[Label, str] = dict(enumerate(names or ()))
    stray = next((label for split in rows.values() for _, label in split if label not in titles), None)
    if titles and stray is not None:
        described = counted(len(titles), "class", "classes")
        notes.append(f"{where} describes {described}, but has the label {stray}, so each label is its own name")
    return titles if titles and stray is None else None


def _chosen(key: str, schema: Any, options: Mapping[str, Any], where: object) -> str | None:
    chosen = text_option(options, key)
    if chosen is not None and chosen not in schema.names:
        raise InputError(f"{where} has no column {chosen!r} ({key}); its columns are {named_few(schema.names, 20)}")
    return chosen


def _only(columns: list[str], kind: str, schema: Any, where: object, known: Collection[str]) -> str:
    if not columns:
        if odd := next((column for column in schema if column.name.lower() in known), None):
            what = "no label" if kind == "label" else "no encoded image"
            raise InputError(
                f"{where} has the column {odd.name!r}, but its type is {odd.type}, {what}; name another column in the "
                f'task file: {kind}_column = "..."'
            )
        raise InputError(
            f"{where} has no column for the {kind} (its columns are {named_few(schema.names, 20)}); "
            f'name it in the task file: {kind}_column = "..."'
        )
    if len(columns) > 1:
        raise InputError(
            f"{where} has several columns that could be the {kind} ({', '.join(columns)}); "
            f'choose in the task file: {kind}_column = "{columns[0]}"'
        )
    return columns[0]


def _labels(
    tables: Mapping[str, ImageTable], column: str, where: object
) -> tuple[dict[str, list[tuple[int, Label]]], list[str]]:
    """Return row and label of every labelled row, by split; -1, null and blank texts mean unlabelled."""
    labels: dict[str, list[tuple[int, Label]]] = {}
    notes = []
    for split, table in tables.items():
        # A split without labels may lack the column.
        found = table.column(column) if column in table.schema.names else [None] * sum(table.counts)
        values = [_whole(value) for value in found]
        _check_kind(values, column, where)
        kept = [(row, value) for row, value in enumerate(values) if value is not None and value != -1]
        if not kept:
            notes.append(f"{split} in {where} has no labels and is left out")
            continue
        labels[split] = kept
        if unlabelled := len(values) - len(kept):
            notes.append(f"left out {counted(unlabelled, 'image')} of {split} in {where} without a label")
    return labels, notes


def _split_column(tables: Mapping[str, ImageTable], options: Mapping[str, Any], where: object) -> str | None:
    """Return the column of the only table that holds nothing but names of splits; ``None`` without one."""
    if len(tables) > 1:
        return None
    (table,) = tables.values()
    names = [name for name in table.schema.names if name.lower() in _SPLIT_COLUMNS]
    columns = {name: [str(value) for value in table.column(name)] for name in names}
    found = split_columns(columns, options, where)
    if len(found) > 1:
        raise InputError(f"{where} has several columns of splits ({', '.join(found)}); leave one of them out")
    return found[0] if found else None


def _by_column(
    table: ImageTable, labels: Mapping[str, list[tuple[int, Label]]], column: str
) -> dict[str, list[tuple[int, Label]]]:
    """Return the labelled rows of a table by the values of its column."""
    values = [str(value) for value in table.column(column)]
    by_value: dict[str, list[tuple[int, Label]]] = {}
    for row, label in (pair for rows in labels.values() for pair in rows):
        by_value.setdefault(values[row], []).append((row, label))
    return by_value


def _whole(value: Any) -> Any:
    """Return a number without a fraction as an integer, and None for a number or a text that is missing.

    Programs write a column of integers with a point if a value was missing in it.
    """
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    return value


def _check_kind(values: list[Any], column: str, where: object) -> None:
    odd = next((value for value in values if value is not None and not isinstance(value, int | str)), None)
    if odd is not None:
        raise InputError(
            f"the column {column!r} of {where} holds {str(odd)[:60]!r}, not one integer or text per image; "
            'choose in the task file: label_column = "..."'
        )
