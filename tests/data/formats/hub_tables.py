"""Parquet files and metadata of ``hf:`` data sets, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shipbench.data.formats.hub_dataset import HubDataset
from shipbench.data.listings import Listing
from tests.data.formats.trees import picture

Names = Mapping[str, Sequence[str]]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def read(path: Path, **options: Any) -> Listing:
    return HubDataset().list(str(path), Path("/"), options)


def pictures(values: Sequence[Any], split: str) -> list[dict[str, Any]]:
    return [{"bytes": picture(f"{split}{row}"), "path": f"{row}.png"} for row in range(len(values))]


def parquet(file: Path, names: Names | None = None, group: int = 100, **columns: Sequence[Any]) -> Path:
    """Write images and columns; ``names`` are the class names of those that are class labels."""
    count = len(next(iter(columns.values())))
    data = {"image": pa.array(pictures(range(count), file.stem), IMAGE)} | {k: pa.array(v) for k, v in columns.items()}
    content = pa.table(data)
    if names is not None:
        features: dict[str, Any] = {"image": {"_type": "Image"}}
        features |= {column: {"_type": "ClassLabel", "names": list(values)} for column, values in names.items()}
        content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, file, row_group_size=group)
    return file


def shard(folder: Path, split: str, values: Sequence[Any], names: Names | None = None) -> Path:
    return parquet(folder / f"{split}-00000-of-00001.parquet", names, label=values)


def metadata(folder: Path, text: str, name: str = "metadata.csv") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
