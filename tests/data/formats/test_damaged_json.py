"""JSON in data sets that cannot be used: nested without an end, cut off, or of another form."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shipbench.data.formats.hub_dataset import HubDataset
from shipbench.data.formats.image_folder import ImageFolder
from shipbench.data.listings import ListedSource
from shipbench.errors import InputError
from tests.data.formats.trees import picture

FOLDER, HUB = ImageFolder(), HubDataset()
NESTED = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (FOLDER, "train.json"),
        (FOLDER, "split_zhou_bugs.json"),
        (HUB, "metadata.jsonl"),
        (HUB, "state.json"),
        (HUB, "dataset_dict.json"),
    ],
)
@pytest.mark.parametrize(("content", "reason"), [(NESTED, "its values are nested too deeply"), ("{", "Expecting")])
def test_a_file_that_is_no_json_is_named(
    source: ListedSource, name: str, content: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name} (is not JSON \(|has a line that is not JSON: ){reason}"):
        source.list(str(tmp_path), Path("/"), {})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("{}", r"state\.json names no file of images; save"),
        ('{"_data_files": [{}]}', "cannot read .* as Arrow streams"),
    ],
)
def test_a_saved_data_set_without_files_is_named(state: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(state)
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match=message):
        HUB.list(str(tmp_path), Path("/"), {})


def test_splits_of_another_form_are_no_splits(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": 3}')
    with pytest.raises(InputError, match="holds no rows"):
        HUB.list(str(tmp_path), Path("/"), {})


def described(folder: Path, text: str) -> Path:
    """Write a Parquet file of two images whose columns ``text`` describes."""
    images = [{"bytes": picture(name), "path": name} for name in ("a", "b")]
    table = pa.table({"image": images, "label": [0, 1]}).replace_schema_metadata({"huggingface": text})
    pq.write_table(table, folder / "all.parquet")
    return folder


@pytest.mark.parametrize("text", [NESTED, "{"])
def test_columns_that_no_json_describes_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"all\.parquet describes its columns in a text that is not JSON \("):
        HUB.list(str(described(tmp_path, text)), Path("/"), {})


@pytest.mark.parametrize("text", ["[1]", '{"info": [1]}', '{"info": {"features": [1]}}'])
def test_a_description_of_another_form_says_nothing(text: str, tmp_path: Path) -> None:
    assert HUB.list(str(described(tmp_path, text)), Path("/"), {}).classes == ("0", "1")
