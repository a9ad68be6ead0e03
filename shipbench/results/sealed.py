"""Parquet files that know their own content: written whole or not at all, and refused when a byte has changed.

A file's metadata hold, under one key, a line with its row if it has only one, and a line with the SHA-256 of all of its
bytes, these 64 digits taken as zeros. Both are found without parsing what surrounds them, which takes a hundred times
as long as checking the hash does. Files of older versions have a hash of their values instead, or none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipbench.errors import InputError
from shipbench.runtime.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_SEAL = b"shipbench.seal"
_HASH = b"\nshipbench.sha256 of this file: "
_ZEROS = b"0" * 64
_DIGEST_OF_VALUES = b"shipbench.sha256"


def write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns of equal length, by name, sealed."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(pd.DataFrame(dict(columns)), preserve_index=False)
    # JSON has no newline of its own: each is the end of a line.
    row = json.dumps(table.to_pylist()[0]).encode() if table.num_rows == 1 else b""
    content = pa.BufferOutputStream()
    # What describes a hundred columns would outweigh their one row four times.
    light: dict[str, Any] = {"use_dictionary": False, "write_statistics": False, "store_schema": False}
    with pq.ParquetWriter(content, table.schema, **light) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_SEAL: b"\n" + row + _HASH + _ZEROS})
    with atomic_path(path) as temporary:
        temporary.write_bytes(_sealed(content.getvalue().to_pybytes()))


def read_parquet(path: Path) -> pa.Table:
    """Return a file's table; raises ``InputError`` naming the file if it is damaged or no parquet file.

    A file without a hash (of an older version) is read as it is.
    """
    content = _read(path)
    return _parse(path, content, sealed=_seal(path, content) is not None)


def read_row(path: Path) -> dict[str, Any]:
    """Return the row of a file that has one; raises ``InputError`` as ``read_parquet`` does, and for more or fewer."""
    content = _read(path)
    row = _seal(path, content)
    if row:
        return json.loads(row)
    return only_row(path, _parse(path, content, sealed=row is not None))


def only_row(path: Path, table: pa.Table) -> dict[str, Any]:
    """Return the row of a file's table; raises ``InputError`` if it has more or fewer."""
    if table.num_rows != 1:
        raise unreadable(path, f"it has {table.num_rows} rows, not one")
    return table.to_pylist()[0]


def unreadable(path: Path, reason: str) -> InputError:
    """Return the error for a file that cannot be used."""
    return InputError(f"record {path} cannot be read ({reason}); move it away to run it again")


def as_frame(tables: Sequence[pa.Table], folder: Path) -> pd.DataFrame:
    """Join tables whose columns may differ: a column that a file lacks is missing in its rows.

    Raises ``InputError`` if the same column holds different kinds of values.
    """
    import pandas as pd
    import pyarrow as pa

    if not tables:
        return pd.DataFrame()
    try:
        return pa.concat_tables(tables, promote_options="permissive").to_pandas()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the files in {folder} do not fit together ({reason}); keep each version's apart") from error


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise unreadable(path, "it is not a file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error


def _sealed(content: bytes) -> bytes:
    """Put a file's hash where it belongs, and zeros are until then."""
    # Texts in the columns may say anything, but they all come before the metadata.
    start = content.rindex(_HASH) + len(_HASH)
    before, after = content[:start], content[start + len(_ZEROS) :]
    return before + hashlib.sha256(before + _ZEROS + after).hexdigest().encode() + after


def _seal(path: Path, content: bytes) -> bytes | None:
    """Return the row in a file's seal, empty if there is no single one, or None for a file without a seal.

    Raises ``InputError`` if the file is not what was sealed.
    """
    if _HASH not in content:
        return None
    if _sealed(content) != content:
        raise _changed(path)
    return content.rpartition(_HASH)[0].rpartition(b"\n")[2]


def _parse(path: Path, content: bytes, *, sealed: bool) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Damage surfaces as many kinds of error, wherever the reader stumbles over it.
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        whole = sealed or _has_its_values(table)
    except Exception as error:
        raise unreadable(path, " ".join(str(error).split())[:300]) from error
    if not whole:
        raise _changed(path)
    # What pandas notes about its columns is not in an older hash, and would be believed.
    return table.replace_schema_metadata(None)


def _has_its_values(table: pa.Table) -> bool:
    """Return whether a table without a seal never had one, and has the values of its hash if it has a hash."""
    noted = table.schema.metadata or {}
    return _SEAL not in noted and noted.get(_DIGEST_OF_VALUES) in (None, _digest_of_values(table))


def _changed(path: Path) -> InputError:
    return unreadable(path, "its content is not what was written")


def _digest_of_values(table: pa.Table) -> bytes:
    content = {field.name: [str(field.type), table.column(field.name).to_pylist()] for field in table.schema}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest().encode()
