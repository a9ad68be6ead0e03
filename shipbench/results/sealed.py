"""Self-verifying Parquet files: written atomically, and refused if a byte has changed.

The metadata of a file holds its seal: a line with the row, if the file has exactly one, and a line with the SHA-256 of
all bytes of the file, computed with zeros in place of these 64 digits. Both are found without parsing the file, which
would take a hundred times as long as checking the hash. Files of other programs have no seal and are read unverified;
``is_sealed`` tells them apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipbench.errors import InputError, one_line, system_reason
from shipbench.runtime.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_SEAL = b"shipbench.seal"
_HASH = b"\nshipbench.sha256 of this file: "
_ZEROS = b"0" * 64


def write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    """Write a sealed file with the given columns, which have equal lengths."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(pd.DataFrame(dict(columns)), preserve_index=False)
    # JSON contains no newline, so the row ends at the next one.
    row = json.dumps(table.to_pylist()[0]).encode() if table.num_rows == 1 else b""
    content = pa.BufferOutputStream()
    # Dictionaries, statistics and a schema of a hundred columns would take four times the space of their one row.
    light: dict[str, Any] = {"use_dictionary": False, "write_statistics": False, "store_schema": False}
    if table.num_rows > 1:
        light |= _encodings(table.schema)
    with pq.ParquetWriter(content, table.schema, **light) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_SEAL: b"\n" + row + _HASH + _ZEROS})
    with atomic_path(path) as temporary:
        temporary.write_bytes(_sealed(content.getvalue().to_pybytes()))


@dataclass(frozen=True)
class StoredRow:
    """The only row of a file, and whether the file has a seal."""

    values: dict[str, Any]
    sealed: bool


@dataclass(frozen=True, eq=False)
class StoredTable:
    """The table of a file, and whether the file has a seal."""

    table: pa.Table
    sealed: bool


def is_sealed(path: Path) -> bool:
    """Return whether a file has a seal; the functions that read it check the seal."""
    return _HASH in _read(path)


def read_table(path: Path, *, repeated: str = "") -> StoredTable:
    """Return the table in a file; raises ``InputError`` if the file is damaged or not Parquet.

    ``repeated`` names a column of texts that has one value in a sealed file, which gets a dictionary column.
    """
    content = _read(path)
    row = _verified_row(path, content)
    return StoredTable(_parse(path, content, sealed=row is not None, repeated=repeated), row is not None)


def read_row(path: Path) -> StoredRow:
    """Return the only row of a file; raises ``InputError`` if it has another number of rows or cannot be read."""
    content = _read(path)
    row = _verified_row(path, content)
    if row:
        return StoredRow(json.loads(row), True)
    table = _parse(path, content, sealed=row is not None)
    if table.num_rows != 1:
        raise unreadable(path, f"it has {table.num_rows} rows, not one")
    return StoredRow(table.to_pylist()[0], row is not None)


def unreadable(path: Path, reason: str) -> InputError:
    """Return the error to raise for an unusable file."""
    return InputError(f"record {path} cannot be read ({reason}); move it away to run it again")


def as_frame(tables: Sequence[pa.Table], where: str) -> pd.DataFrame:
    """Concatenate tables, which lie ``where``; a column that one of them lacks is null in its rows.

    A column of texts that is a dictionary column in any table becomes a category. Needs at least one table. Raises
    ``InputError`` if the same column has incompatible types.
    """
    import pyarrow as pa

    try:
        return pa.concat_tables(_alike(tables), promote_options="permissive").to_pandas()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        raise not_together(where, error) from error


def not_together(where: str, error: Exception) -> InputError:
    """Return the error to raise for files of which the same column has incompatible types."""
    return InputError(
        f"the files in {where} do not fit together ({one_line(error)}); keep each version's in a folder of its own"
    )


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise unreadable(path, "it is not a file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, system_reason(error)) from error


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """Return the encodings of columns with many rows: plain values take three times the space and time to read."""
    import pyarrow as pa

    of_kind = ((pa.types.is_integer, "DELTA_BINARY_PACKED"), (pa.types.is_floating, "BYTE_STREAM_SPLIT"))
    encodings = {field.name: name for field in schema for is_kind, name in of_kind if is_kind(field.type)}
    return {
        "column_encoding": encodings,
        "use_dictionary": [field.name for field in schema if field.name not in encodings],
    }


def _sealed(content: bytes) -> bytes:
    """Return a file's content with the right hash in its seal."""
    start = _end_of_seal(content)
    return content[:start] + _digest(content, start) + content[start + len(_ZEROS) :]


def _end_of_seal(content: bytes) -> int:
    """Return where the hash starts in a file's content; -1 if it has no seal."""
    # Values may contain the same text as the seal, but all of them precede the metadata.
    place = content.rfind(_HASH)
    return -1 if place < 0 else place + len(_HASH)


def _digest(content: bytes, start: int) -> bytes:
    """Return the hash of a file's content with zeros in place of the hash at ``start``."""
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(_ZEROS)
    digest.update(view[start + len(_ZEROS) :])
    return digest.hexdigest().encode()


def _verified_row(path: Path, content: bytes) -> bytes | None:
    """Return the row in a file's seal, empty if the file has another number of rows; None if it has no seal.

    Raises ``InputError`` if the content does not have the hash in the seal.
    """
    start = _end_of_seal(content)
    if start < 0:
        return None
    if content[start : start + len(_ZEROS)] != _digest(content, start):
        raise _changed(path)
    end = start - len(_HASH)
    return content[content.rfind(b"\n", 0, end) + 1 : end]


def _parse(path: Path, content: bytes, *, sealed: bool, repeated: str = "") -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A damaged file can raise almost any error.
    try:
        source = pa.BufferReader(content)
        metadata = pq.read_metadata(source)
        once = [repeated] if sealed and repeated in metadata.schema.names else None
        table = pq.ParquetFile(source, metadata=metadata, read_dictionary=once).read(use_threads=False)
    except Exception as error:
        raise unreadable(path, one_line(error)) from error
    if _SEAL in (table.schema.metadata or {}) and not sealed:
        raise _changed(path)
    # Without its metadata: pandas would restore the index that another program may have noted there.
    return table.replace_schema_metadata(None)


def _alike(tables: Sequence[pa.Table]) -> Sequence[pa.Table]:
    """Return the tables with dictionaries in every column of texts that is a dictionary column in any of them."""
    import pyarrow as pa

    fields = (field for table in tables for field in table.schema)
    names = dict.fromkeys(field.name for field in fields if pa.types.is_dictionary(field.type))
    for name in names:
        tables = [_with_dictionary(table, name) for table in tables]
    return tables


def _with_dictionary(table: pa.Table, name: str) -> pa.Table:
    import pyarrow as pa

    place = table.schema.get_field_index(name)
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if place < 0 or not any(is_kind(table.schema.field(place).type) for is_kind in kinds):
        return table
    return table.set_column(place, name, table.column(place).cast(pa.string()).dictionary_encode())


def _changed(path: Path) -> InputError:
    return unreadable(path, "its content is not what was written")
