"""Images and labels in Parquet files and in Arrow stream files, read without loading the images into memory.

The description of the columns is the schema's metadata key ``huggingface``, as the ``datasets`` library writes it.
"""

from __future__ import annotations

import bisect
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from shipbench.data.images import read_bytes
from shipbench.errors import InputError, one_line, system_reason
from shipbench.runtime.json_text import parse_json

_KEPT_BYTES = 1 << 28
"""Bytes of decoded row groups that a Parquet table keeps: readers go through a split roughly in order."""


@dataclass(frozen=True)
class Features:
    """Columns by meaning: those that hold images, and the class names of those that hold class labels.

    ``label_lists`` are columns with several class labels per image.
    """

    images: tuple[str, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    label_lists: tuple[str, ...] = ()


def read_features(description: Any) -> Features:
    """Read the features of a ``dataset_info.json`` or of the schema's metadata: an object per column.

    A description that is no object says nothing.
    """
    images, classes, lists = [], {}, []
    for name, feature in _object(description).items():
        kind = feature.get("_type") if isinstance(feature, dict) else None
        if kind == "Image":
            images.append(name)
        elif kind == "ClassLabel":
            classes[name] = tuple(map(str, feature.get("names") or ()))
        elif isinstance(feature, list) or kind in ("Sequence", "List", "LargeList"):
            inner = feature[0] if isinstance(feature, list) and feature else feature
            inner = inner.get("feature", inner) if isinstance(inner, dict) else {}
            if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
                lists.append(name)
    return Features(tuple(images), classes, tuple(lists))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


class ImageTable(ABC):
    """The rows of one split, in several files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self._lock = threading.Lock()

    @property
    @abstractmethod
    def schema(self) -> Any:
        """The Arrow schema of the rows."""

    @property
    @abstractmethod
    def counts(self) -> Sequence[int]:
        """Number of rows of each file."""

    @abstractmethod
    def column(self, name: str) -> list[Any]:
        """Return all values of a column."""

    @abstractmethod
    def cell(self, name: str, row: int) -> Any:
        """Return one value of a column."""

    def features(self) -> Features:
        """Return what the schema says of its columns; nothing if another program has written the file.

        Raises ``InputError`` if the description is not JSON.
        """
        described = (self.schema.metadata or {}).get(b"huggingface")
        try:
            content = parse_json(described) if described else {}
        except ValueError as error:
            raise InputError(
                f"{self.files[0]} describes its columns in a text that is not JSON ({error}); get it again"
            ) from error
        return read_features(_object(_object(content).get("info")).get("features"))

    def holders(self) -> list[Path]:
        """Return the file that holds each row."""
        return [file for file, count in zip(self.files, self.counts, strict=True) for _ in range(count)]


class ArrowTable(ImageTable):
    """Arrow stream files, mapped into memory."""

    def __init__(self, files: Sequence[Path]) -> None:
        import pyarrow as pa

        super().__init__(files)
        try:
            tables = [pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in files]
            self._table = pa.concat_tables(tables)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"cannot read {files[0].parent} as Arrow streams: {error}") from error
        self._counts = [len(table) for table in tables]

    @property
    def schema(self) -> Any:
        """The Arrow schema of the rows."""
        return self._table.schema

    @property
    def counts(self) -> Sequence[int]:
        """Number of rows of each file."""
        return self._counts

    def column(self, name: str) -> list[Any]:
        """Return all values of a column."""
        values: list[Any] = self._table.column(name).to_pylist()
        return values

    def cell(self, name: str, row: int) -> Any:
        """Return one value of a column."""
        return self._table.column(name)[row].as_py()


class ParquetTable(ImageTable):
    """Parquet files, read by row group; the groups read last are kept."""

    def __init__(self, files: Sequence[Path]) -> None:
        import pyarrow.parquet as pq

        super().__init__(files)
        self._readers: list[Any] = []
        self._groups: list[tuple[Path, Any, int]] = []
        self._starts = [0]
        for file in files:
            with reading_parquet(file):
                reader = pq.ParquetFile(file, memory_map=True)
            self._readers.append(reader)
            for group in range(reader.metadata.num_row_groups):
                self._groups.append((file, reader, group))
                self._starts.append(self._starts[-1] + reader.metadata.row_group(group).num_rows)
        self._kept: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._kept_bytes = 0

    @property
    def schema(self) -> Any:
        """The Arrow schema of the rows."""
        return self._readers[0].schema_arrow

    @property
    def counts(self) -> Sequence[int]:
        """Number of rows of each file."""
        return [reader.metadata.num_rows for reader in self._readers]

    def column(self, name: str) -> list[Any]:
        """Return all values of a column."""
        readers = zip(self.files, self._readers, strict=True)
        columns = (_column(file, name, partial(reader.read, columns=[name])) for file, reader in readers)
        return [value for column in columns for value in column.to_pylist()]

    def cell(self, name: str, row: int) -> Any:
        """Return one value of a column."""
        group = bisect.bisect_right(self._starts, row) - 1
        return self._group(name, group)[row - self._starts[group]].as_py()

    def _group(self, name: str, number: int) -> Any:
        # One reader must not be used by two threads at once.
        with self._lock:
            if (name, number) not in self._kept:
                file, reader, group = self._groups[number]
                self._kept[name, number] = _column(file, name, partial(reader.read_row_group, group, columns=[name]))
                self._kept_bytes += self._kept[name, number].nbytes
            self._kept.move_to_end((name, number))
            while len(self._kept) > 1 and self._kept_bytes > _KEPT_BYTES:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
            return self._kept[name, number]


@contextmanager
def reading_parquet(file: Path) -> Iterator[None]:
    """Turn the errors of reading ``file`` into one sentence."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        # The system gives a number to its own reasons, such as a permission; a damaged file has none.
        if isinstance(error, OSError) and error.errno:
            raise InputError(f"cannot read {file}: {system_reason(error)}") from error
        reason = one_line(error, 200).rstrip(".")
        raise InputError(f"{file} is damaged or no Parquet file ({reason}); get it again") from error


def _column(file: Path, name: str, read: Callable[[], Any]) -> Any:
    with reading_parquet(file):
        rows = read()
    # Reading a column that is not there gives rows without columns.
    if name not in rows.column_names:
        raise InputError(
            f"{file} has no column {name!r}, which another file of its split has; save both with the same columns, or "
            "move the file to another folder"
        )
    return rows.column(name)


@dataclass(frozen=True)
class TableImages:
    """Images of the column ``column`` in several tables, called ``train/00000012`` after split and row.

    A cell holds the encoded image, or the path of its file, relative to ``folder``.
    """

    tables: Mapping[str, ImageTable]
    column: str
    folder: Path

    def read(self, path: str) -> bytes:
        """Return an encoded image; raise ``InputError`` if its cell is empty or its file cannot be read."""
        split, _, row = path.rpartition("/")
        cell = self.tables[split].cell(self.column, int(row))
        content, file = _content_or_file(cell)
        if content is None and not file:
            raise self._no_image(split, int(row))
        return content if isinstance(content, bytes) else read_bytes(self.folder / str(file))

    def holders(self, split: str, rows: Sequence[int]) -> list[Path]:
        """Return the file that holds the image of each of some rows: that of the table, or the one that the cell names.

        Raises ``InputError`` if one of the cells is empty, unless the first holds an image.
        """
        table = self.tables[split]
        of_tables = table.holders()
        in_tables = [of_tables[row] for row in rows]
        found = [_content_or_file(table.cell(self.column, row)) for row in rows[:1]]
        if any(file for _, file in found):
            # Cells hold images or name files, all of them alike; reading every image would take too long.
            cells = table.column(self.column)
            found = [_content_or_file(cells[row]) for row in rows]
        if (None, None) in found:
            raise self._no_image(split, rows[found.index((None, None))])
        # With an image in a single cell among names of files, its table would pass for the file of the image.
        named = [self.folder / file for _, file in found if file]
        return named if len(named) == len(rows) else in_tables

    def _no_image(self, split: str, row: int) -> InputError:
        return InputError(f"{self.folder}: row {row} of {split} has no image in the column {self.column!r}")


def _content_or_file(cell: Any) -> tuple[Any, str | None]:
    """Return the encoded image in a cell, or None and the file that it names; both None for an empty cell."""
    content, file = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if isinstance(content, str):
        content, file = None, content
    return (None, str(file) if file else None) if content is None else (content, None)


def entry_name(split: str, row: int) -> str:
    """Return the path under which ``TableImages`` reads a row."""
    return f"{split}/{row:08d}"


def image_columns(schema: Any, names: Sequence[str]) -> list[str]:
    """Return the columns that can hold images: structs of ``bytes`` and ``path``, binary ones, texts in ``names``."""
    import pyarrow as pa

    structs = [
        column.name
        for column in schema
        if pa.types.is_struct(column.type) and {"bytes", "path"} == {part.name for part in column.type}
    ]
    binary = [
        column.name for column in schema if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    ]
    texts = [column.name for column in schema if column.name.lower() in names and _is_text(column.type)]
    return structs or binary or texts


def label_columns(schema: Any, names: Sequence[str]) -> list[str]:
    """Return the columns among ``names`` that hold integers, else texts, else numbers with a point and switches."""
    import pyarrow as pa

    columns = [column for column in schema if column.name.lower() in names]
    integers = [column.name for column in columns if pa.types.is_integer(column.type)]
    texts = [column.name for column in columns if _is_text(column.type)]
    others = [
        column.name for column in columns if pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
    ]
    return integers or texts or others


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    # A column of categories of pandas is a dictionary of texts.
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))
