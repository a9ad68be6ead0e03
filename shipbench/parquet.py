"""Parquet files that know their own content: written whole or not at all, and refused when a byte has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipbench.cache import atomic_path
from shipbench.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_DIGEST = b"shipbench.sha256"


def write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns of equal length, by name, with a hash of them in the file's metadata."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(pd.DataFrame(dict(columns)), preserve_index=False)
    table = table.replace_schema_metadata({_DIGEST: _digest(table)})
    with atomic_path(path) as temporary:
        # What describes a hundred columns would outweigh their one row four times.
        pq.write_table(table, temporary, use_dictionary=False, write_statistics=False)


def read_parquet(path: Path) -> pa.Table:
    """Return a file's table; raises ``InputError`` naming the file if it is damaged or no parquet file.

    A file without a hash (of an older version) is read as it is.
    """
    import pyarrow.parquet as pq

    if not path.is_file():
        raise unreadable(path, "it is not a file")
    # Damage surfaces as many kinds of error, wherever the reader stumbles over it.
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(use_threads=False)
        expected = (table.schema.metadata or {}).get(_DIGEST)
        whole = expected is None or expected == _digest(table)
    except Exception as error:
        raise unreadable(path, " ".join(str(error).split())[:300]) from error
    if not whole:
        raise unreadable(path, "its content is not what was written")
    # What pandas notes about its columns is not in the hash, and would be believed.
    return table.replace_schema_metadata(None)


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


def _digest(table: pa.Table) -> bytes:
    content = {field.name: [str(field.type), table.column(field.name).to_pylist()] for field in table.schema}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest().encode()
