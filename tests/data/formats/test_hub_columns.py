"""``hf:PATH``: which columns of Parquet files hold the images and labels, and where their names are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shipbench.errors import InputError
from tests.data.formats.hub_tables import read
from tests.data.formats.trees import labels, picture, tree

CARD = """---
dataset_info:
  features:
  - name: label
    dtype:
      class_label:
        names: [x, y]
---
"""
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["ant", "bee"]}}


def parquet(folder: Path, **columns: Sequence[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), folder / "train.parquet")
    return folder


def pictures(number: int) -> list[dict[str, Any]]:
    return [{"bytes": picture(f"{row}"), "path": None} for row in range(number)]


def test_shards_turned_into_tables_call_the_label_cls(tmp_path: Path) -> None:
    folder = parquet(tmp_path, jpg=pictures(2), cls=[0, 3], __key__=["a", "b"])
    assert read(folder).classes == ("0", "3")
    assert read(parquet(tmp_path, jpg=pictures(2), cls=[0, 3], label=["x", "y"])).classes == ("x", "y")


def test_categories_of_pandas_are_labels(tmp_path: Path) -> None:
    categories = pa.array(["bee", "ant", "bee"]).dictionary_encode()
    folder = parquet(tmp_path, image=pictures(3), label=categories)
    assert [name for _, name in labels(read(folder))["train"]] == ["bee", "ant", "bee"]


def test_an_empty_text_is_no_label(tmp_path: Path) -> None:
    folder = parquet(tmp_path, image=pictures(4), label=["bee", "", "ant", " "])
    listing = read(folder)
    assert [name for _, name in labels(listing)["train"]] == ["bee", "ant"]
    assert listing.notes[0].startswith("left out 2 images of train in ")


def test_a_column_of_paths_names_files(tmp_path: Path) -> None:
    tree(tmp_path, "img/a.png", "img/b.png")
    listing = read(parquet(tmp_path, image_path=["img/a.png", "img/b.png"], label=["ant", "bee"]))
    (first, _), _ = labels(listing)["train"]
    assert listing.signatures[first] == tmp_path / "img" / "a.png"
    assert listing.images.read(first) == picture("img/a.png")
    tree(tmp_path / "numbered", "a.png", "b.png")
    assert read(parquet(tmp_path / "numbered", id=["1", "2"], path=["a.png", "b.png"], label=[0, 1])).classes == (
        "0",
        "1",
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": pictures(2), "labels": [[0, 1], [1]]}, r"the column 'labels', but its type is list<.*>, no label"),
        (
            {"image": [[0, 1], [1, 0]], "label": [0, 1]},
            r"the column 'image', but its type is list<.*>, no encoded image",
        ),
        ({"image": pictures(2), "species": [0, 1]}, r"no column for the label \(its columns are image, species\)"),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(parquet(tmp_path, **columns))


@pytest.mark.parametrize("config", ["default", "bugs"])
def test_older_data_sets_have_their_class_names_in_a_file(tmp_path: Path, config: str) -> None:
    parquet(tmp_path, image=pictures(2), label=[0, 1])
    (tmp_path / "dataset_infos.json").write_text(json.dumps({config: {"features": FEATURES}}))
    assert read(tmp_path).classes == ("ant", "bee")
    (tmp_path / "dataset_infos.json").write_text(json.dumps({"a": {"features": FEATURES}, "b": {}}))
    assert read(tmp_path).classes == ("0", "1")
    (tmp_path / "README.md").write_text(CARD)
    assert read(tmp_path).classes == ("x", "y")


@pytest.mark.parametrize(("values", "stray"), [([0, 2], 2), (["ant", "wasp"], "ant")])
def test_names_of_other_labels_are_ignored(tmp_path: Path, values: list[Any], stray: object) -> None:
    parquet(tmp_path, image=pictures(2), label=values)
    (tmp_path / "README.md").write_text(CARD)
    listing = read(tmp_path)
    assert listing.classes == tuple(map(str, values))
    assert f"describes 2 classes, but has the label {stray}, so each label is its own name" in listing.notes[0]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "labels.jsonl")
    with pytest.raises(InputError, match=r"labels\.jsonl is not a Parquet file; name one, or the folder of a data set"):
        read(tmp_path / "labels.jsonl")
