"""``hf:NAME[:CONFIG]``: local Parquet files, saved data sets and image folders, and names on the hub."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shipbench.data import find, identities
from shipbench.data.formats import arrow_tables
from shipbench.data.formats.arrow_tables import ParquetTable
from shipbench.data.formats.hub_dataset import HubDataset
from shipbench.data.listings import Listing, numbered
from shipbench.data.types import Identity
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.formats.trees import labels, picture, sizes, tree
from tests.hub import DATA_SET, REPO, Hub, serve

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


@pytest.mark.parametrize(
    "files",
    [
        ("data/train-00000-of-00001", "data/validation-00000-of-00001", "data/test-00000-of-00001"),
        ("default/train/0000", "default/validation/0000", "default/test/0000"),
        ("plain/train-00000-of-00001", "plain/dev-00000-of-00001", "plain/eval-00000-of-00001"),
        ("train", "valid", "test"),
        ("train/a", "val/b", "test/c"),
        ("birds_train_2024", "birds_dev", "birds.test"),
    ],
)
def test_parquet_files_name_their_split_in_many_ways(tmp_path: Path, files: tuple[str, str, str]) -> None:
    for file, values in zip(files, ([1, 0, 1], [0, 1], [1, 0]), strict=True):
        parquet(tmp_path / f"{file}.parquet", {"label": ["ant", "bee"]}, label=values)
    listing = read(tmp_path)
    assert (listing.classes, sizes(listing)) == (("ant", "bee"), {"train": 3, "val": 2, "test": 2})
    assert [name for _, name in labels(listing)["train"]] == ["bee", "ant", "bee"]


def test_shards_and_row_groups_are_read_in_order_by_several_threads(tmp_path: Path) -> None:
    for number in range(2):
        parquet(tmp_path / f"data/train-0000{number}-of-00002.parquet", group=2, label=[0, 1, 0, 1, 0])
    listing = read(tmp_path)
    entries = listing.splits["train"]
    assert [listing.signatures[entry.path].name[6:11] for entry in entries] == ["00000"] * 5 + ["00001"] * 5
    expected = [picture(f"train-0000{row // 5}-of-00002{row % 5}") for row in range(10)]
    content: list[Any] = [None] * 10

    def fetch(first: int) -> None:
        for row in range(first, 10, 3):
            content[row] = listing.images.read(entries[row].path)

    threads = [threading.Thread(target=fetch, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content == expected


def test_only_a_few_row_groups_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.data.formats.arrow_tables._KEPT_BYTES", 1)
    table = ParquetTable([parquet(tmp_path / "train.parquet", group=2, label=list(range(6)))])
    assert [table.cell("label", row) for row in (5, 0, 3, 3)] == [5, 0, 3, 3]
    assert len(table._kept) == 1


class Group:
    """A reader of Parquet with one row per group, and the column read from it, which counts questions for its size."""

    asked = 0

    def read_row_group(self, group: int, columns: list[str]) -> Group:
        return self

    def column(self, name: str) -> Group:
        return self

    def __getitem__(self, row: int) -> pa.Scalar[Any]:
        return pa.scalar(row)

    @property
    def nbytes(self) -> int:
        self.asked += 1
        return 1


def test_the_size_of_what_is_kept_is_not_counted_anew(tmp_path: Path) -> None:
    table, reader = ParquetTable([parquet(tmp_path / "train.parquet", group=1, label=list(range(50)))]), Group()
    table._groups = [(reader, group) for _, group in table._groups]
    assert [table.cell("label", row) for row in range(50)] == [0] * 50
    assert reader.asked <= 100


def test_the_groups_that_fit_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ParquetTable([parquet(tmp_path / "train.parquet", group=1, label=list(range(50)))])
    table.cell("label", 0)
    monkeypatch.setattr(arrow_tables, "_KEPT_BYTES", 3 * table._kept_bytes)
    assert [table.cell("label", row) for row in range(50)] == list(range(50))
    assert len(table._kept) == 3


def test_a_single_file_is_a_training_set(tmp_path: Path) -> None:
    assert sizes(read(parquet(tmp_path / "bugs.parquet", label=["b", "a", "b"]))) == {"train": 3}


@pytest.mark.parametrize("column", ["label", "labels", "fine_label", "class", "target"])
def test_without_a_description_the_label_is_the_integer_column(tmp_path: Path, column: str) -> None:
    parquet(tmp_path / "train.parquet", **{"size": [5, 6, 7], column: [4, 2, 4]})
    listing = read(tmp_path)
    assert listing.classes == ("2", "4")
    assert "from 2 to 4, are numbered 0 to 1" in listing.notes[0]


@pytest.mark.parametrize(
    ("values", "classes"),
    [([10.0, 2.0, None, float("nan"), 10.0], ("2", "10")), ([True, False, True], ("False", "True"))],
)
def test_labels_may_be_whole_numbers_with_a_point_or_switches(
    tmp_path: Path, values: list[Any], classes: tuple[str, ...]
) -> None:
    parquet(tmp_path / "train.parquet", label=values)
    listing = read(tmp_path)
    assert (listing.classes, sizes(listing)) == (classes, {"train": 3})


def test_a_column_of_the_only_table_says_the_split(tmp_path: Path) -> None:
    file = parquet(tmp_path / "bugs.parquet", label=[0, 1, 0, 1], split=["train", "train", "test", "val"])
    listing = read(file)
    assert sizes(listing) == {"train": 2, "val": 1, "test": 1}
    assert listing.images.read(listing.splits["test"][0].path) == picture("bugs2")
    parquet(file, label=[0, 1], split=["train", "train"])
    assert sizes(read(file)) == {"train": 2}
    parquet(file, label=[0, 1], split=["train", "test"], set=["train", "val"])
    with pytest.raises(InputError, match=r"several columns of splits \(split, set\)"):
        read(file)


def test_a_binary_column_is_an_image(tmp_path: Path) -> None:
    content = pa.table({"content": [picture("0"), picture("1")], "label": [0, 1]})
    pq.write_table(content, tmp_path / "train.parquet")
    listing = read(tmp_path)
    assert listing.images.read(listing.splits["train"][1].path) == picture("1")


def test_an_image_without_bytes_is_a_file(tmp_path: Path) -> None:
    tree(tmp_path, "img/a.png", "img/b.png")
    cells = pa.array([{"bytes": None, "path": f"img/{name}.png"} for name in "ab"], IMAGE)
    pq.write_table(pa.table({"image": cells, "label": [0, 1]}), tmp_path / "train.parquet")
    listing = read(tmp_path)
    assert listing.images.read(listing.splits["train"][1].path) == picture("img/b.png")


def identity(path: Path, **options: Any) -> Identity:
    task = replace(get_task(f"hf:{path}"), options=json.dumps(options), allow_leaks=True)
    return find(task, None, ("train", "test")).identity


@pytest.fixture
def _remembered(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Identities are remembered although the files are new."""
    monkeypatch.setattr(identities, "TICK_NS", -(10**12))


@pytest.mark.usefixtures("_remembered")
def test_another_column_of_images_holds_other_images(tmp_path: Path) -> None:
    columns = {name: [picture(f"{name}{row}") for row in range(10)] for name in ("front", "back")}
    pq.write_table(pa.table({**columns, "label": [0, 1] * 5}), tmp_path / "train.parquet")
    front, back, again = (identity(tmp_path, image_column=name) for name in ("front", "back", "front"))
    assert front == again
    assert front.fingerprint != back.fingerprint
    assert not set(front.contents.values()) & set(back.contents.values())


@pytest.mark.usefixtures("_remembered")
def test_a_file_that_a_cell_names_is_part_of_the_identity(tmp_path: Path) -> None:
    names = [f"img/{row}.png" for row in range(10)]
    tree(tmp_path, *names)
    cells = pa.array([{"bytes": None, "path": name} for name in names], IMAGE)
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 5}), tmp_path / "train.parquet")
    before = identity(tmp_path)
    assert identity(tmp_path) == before
    (tmp_path / "img/3.png").write_bytes(picture("another"))
    assert identity(tmp_path).fingerprint != before.fingerprint


def test_files_that_cells_name_are_looked_up_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"img/{row}.png" for row in range(10)]
    tree(tmp_path, *names)
    cells = pa.array([{"bytes": None, "path": name} for name in names], IMAGE)
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 5}), tmp_path / "train.parquet", row_group_size=1)
    read_rows, cell = list[int](), ParquetTable.cell

    def count(table: ParquetTable, name: str, row: int) -> Any:
        read_rows.append(row)
        return cell(table, name, row)

    monkeypatch.setattr(ParquetTable, "cell", count)
    assert list((read(tmp_path).signatures or {}).values()) == [tmp_path / name for name in names]
    assert len(read_rows) <= 1


@pytest.mark.parametrize("row", [0, 2])
def test_an_empty_cell_among_names_of_files_is_refused(tmp_path: Path, row: int) -> None:
    names: list[str | None] = [f"img/{number}.png" for number in range(4)]
    tree(tmp_path, *(name for name in names if name))
    names[row] = None
    for label, message in ((1, rf"row {row} of train has no image in the column 'image'"), (-1, None)):
        values = [0, 1, 0, 1, 0]
        values[row] = label
        cells = pa.array([{"bytes": None, "path": name} for name in [*names, "img/1.png"]], IMAGE)
        pq.write_table(pa.table({"image": cells, "label": values}), tmp_path / "train.parquet")
        if message is None:
            assert sizes(read(tmp_path)) == {"train": 4}
            continue
        with pytest.raises(InputError, match=message):
            read(tmp_path)


def test_an_image_among_names_of_files_is_not_its_table(tmp_path: Path) -> None:
    tree(tmp_path, *(f"img/{row}.png" for row in range(10)))
    cells = [{"bytes": None, "path": f"img/{row}.png"} for row in range(9)] + [{"bytes": picture("x"), "path": None}]
    pq.write_table(pa.table({"image": pa.array(cells, IMAGE), "label": [0, 1] * 5}), tmp_path / "train.parquet")
    paths = [f"train/{row:08d}" for row in range(10)]
    images = HubDataset().open(get_task(f"hf:{tmp_path}"), None, ("train",)).identify(paths)
    assert images[paths[-1]].sha256 == hashlib.sha256(picture("x")).hexdigest()


def test_a_device_in_place_of_an_image_is_refused(tmp_path: Path) -> None:
    cells = pa.array([{"bytes": None, "path": "/dev/null"}] * 2, IMAGE)
    pq.write_table(pa.table({"image": cells, "label": [0, 1]}), tmp_path / "train.parquet")
    listing = read(tmp_path)
    with pytest.raises(InputError, match="cannot read /dev/null: it is not a regular file"):
        listing.images.read(listing.splits["train"][0].path)


@pytest.mark.parametrize("pattern", ["/elsewhere/*.parquet", "../other/*.parquet", "x/**.parquet"])
def test_patterns_of_a_card_stay_in_the_folder(tmp_path: Path, pattern: str) -> None:
    parquet(tmp_path / "other" / "x.parquet", label=[0, 1, 0, 1])
    parquet(tmp_path / "bugs" / "train.parquet", label=[0, 1])
    (tmp_path / "bugs" / "README.md").write_text(f"---\nconfigs:\n- data_files: '{pattern}'\n---\n")
    assert sizes(read(tmp_path / "bugs")) == {"train": 2}


def test_unlabelled_images_and_splits_are_left_out(tmp_path: Path) -> None:
    names = {"label": ["ant", "bee"]}
    shard(tmp_path, "train", [0, 1, -1], names)
    shard(tmp_path, "test", [-1, -1], names)
    listing = read(tmp_path)
    assert sizes(listing) == {"train": 2}
    assert [note.split(" in ")[0] for note in listing.notes] == ["test", "left out 1 image of train"]


def test_names_without_images_are_left_out(tmp_path: Path) -> None:
    shard(tmp_path, "train", [0, 2], {"label": ["ant", "bee", "wasp"]})
    listing = read(tmp_path)
    assert listing.classes == ("ant", "wasp")
    assert listing.notes == (f"1 class of {tmp_path} without any image left out: bee",)


def test_several_configurations_ask_for_one(tmp_path: Path) -> None:
    shard(tmp_path / "large", "train", [0, 1, 1])
    shard(tmp_path / "small", "train", [0, 1])
    with pytest.raises(InputError, match=r"several configurations \(large, small\); name one, as in hf:.*:large"):
        read(tmp_path)
    assert sizes(read(tmp_path, config="small")) == {"train": 2}
    assert sizes(HubDataset().list(f"{tmp_path}:large", Path("/"), {})) == {"train": 3}
    with pytest.raises(InputError, match=r"has no configuration 'tiny'; it has large, small"):
        read(tmp_path, config="tiny")


def test_the_card_lists_files_and_class_names(tmp_path: Path) -> None:
    parquet(tmp_path / "x" / "one.parquet", label=[0, 1])
    parquet(tmp_path / "y" / "two.parquet", label=[1, 0, 1])
    (tmp_path / "README.md").write_text("""---
configs:
- config_name: default
  data_files:
  - split: train
    path: y/*
  - split: test
    path: [x/one.parquet]
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype: {class_label: {names: {'0': ant, '1': bee}}}
---
# Bugs
""")
    # A pattern of the card fits what a Mac keeps beside a file, too.
    (tmp_path / "y" / "._two.parquet").write_bytes(b"\x00\x05\x16\x07")
    listing = read(tmp_path)
    assert (listing.classes, sizes(listing)) == (("ant", "bee"), {"train": 3, "test": 2})


@pytest.mark.parametrize(
    ("columns", "names", "options", "message"),
    [
        ({"label": [0, 1], "class": [0, 1]}, None, {}, r"several columns .* label \(label, class\)"),
        ({"a": [0, 1], "b": [0, 1]}, {"a": "xy", "b": "xy"}, {}, r"label \(a, b\); .* label_column = \"a\""),
        ({"species": [0, 1]}, None, {}, r"no column for the label \(its columns are image, species\)"),
        ({"label": [[0], [1]]}, None, {"label_column": "label"}, r"holds '\[0\]', not one integer or text per image"),
        ({"label": [0, 1]}, None, {"label_column": "kind"}, r"no column 'kind' \(label_column\)"),
        ({"label": [-1, -1]}, None, {}, r"has no train split"),
        ({"label": [0, 0]}, None, {}, r"the single class '0'"),
    ],
)
def test_what_the_columns_do_not_decide_is_refused(
    tmp_path: Path, columns: dict[str, Any], names: Names | None, options: dict[str, Any], message: str
) -> None:
    parquet(tmp_path / "train.parquet", names, **columns)
    with pytest.raises(InputError, match=message):
        read(tmp_path, **options)


def test_shards_with_a_hash_in_their_name_keep_their_split(tmp_path: Path) -> None:
    for split in ("train", "unsupervised"):
        parquet(tmp_path / f"data/{split}-00000-of-00001-1a2b3c4d5e6f7a8b.parquet", label=[0, 1])
    listing = read(tmp_path)
    assert (sizes(listing), listing.notes) == ({"train": 2}, (f"left out 1 split of {tmp_path}: unsupervised",))


def test_splits_without_a_role_are_left_out_unless_chosen(tmp_path: Path) -> None:
    for split in ("train", "extra", "test"):
        shard(tmp_path, split, [0, 1])
    listing = read(tmp_path)
    assert (sizes(listing), listing.notes) == ({"train": 2, "test": 2}, (f"left out 1 split of {tmp_path}: extra",))
    assert sizes(read(tmp_path, splits={"train": ["train", "extra"]})) == {"train": 4, "test": 2}


def test_a_saved_data_set_is_read_from_its_arrow_files(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["ant", "bee"]))
    splits = {
        split: datasets.Dataset.from_dict({"image": pictures(values, split), "label": values}, features=features)
        for split, values in {"train": [0, 1, 1], "test": [1, 0]}.items()
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "all")
    splits["train"].save_to_disk(tmp_path / "one")
    listing = read(tmp_path / "all")
    assert (listing.classes, sizes(listing)) == (("ant", "bee"), {"train": 3, "test": 2})
    assert listing.images.read(listing.splits["test"][0].path) == picture("test0")
    assert {file.parent.name for file in listing.signatures.values()} == {"train", "test"}
    assert sizes(read(tmp_path / "one")) == {"train": 3}


def metadata(folder: Path, text: str, name: str = "metadata.csv") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_metadata_at_the_top_leaves_the_split_to_the_folders(tmp_path: Path) -> None:
    tree(tmp_path, "train/a.png", "train/b.png", "test/photo of a train.png")
    metadata(tmp_path, "file_name,label\ntrain/a.png,ant\ntrain/b.png,bee\ntest/photo of a train.png,bee\n")
    assert labels(read(tmp_path)) == {
        "train": [("train/a.png", "ant"), ("train/b.png", "bee")],
        "test": [("test/photo of a train.png", "bee")],
    }


def test_hidden_metadata_are_not_read(tmp_path: Path) -> None:
    tree(tmp_path, "train/a.png", "train/b.png", "test/c.png")
    metadata(tmp_path, "file_name,label\ntrain/a.png,ant\ntrain/b.png,bee\ntest/c.png,bee\n")
    (tmp_path / ".trash").mkdir()
    metadata(tmp_path / ".trash", "{}\n", "metadata.jsonl")
    assert sizes(read(tmp_path)) == {"train": 2, "test": 1}


def test_a_column_of_metadata_says_the_split(tmp_path: Path) -> None:
    tree(tmp_path, "a.png", "b.png", "c.png")
    metadata(tmp_path, "file_name,label,split\na.png,1.0,train\nb.png,10.0,train\nc.png,10.0,test\n")
    assert labels(read(tmp_path)) == {"train": [("a.png", "1"), ("b.png", "10")], "test": [("c.png", "10")]}
    metadata(tmp_path, "file_name,label,split,fold\na.png,1,train,train\nb.png,2,test,val\n")
    with pytest.raises(InputError, match=r"several columns of splits \(split, fold\)"):
        read(tmp_path)


def test_metadata_in_parquet_and_several_columns(tmp_path: Path) -> None:
    tree(tmp_path, "a.png", "b.png")
    rows = [{"file_name": "a.png", "kind": 1, "size": 3}, {"file_name": "b.png", "kind": 2, "size": 3}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "metadata.parquet")
    with pytest.raises(InputError, match=r"no column for the label; its columns are kind, size: .* label_column"):
        read(tmp_path)
    assert read(tmp_path, label_column="kind").classes == ("1", "2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,label\na.png,0\nb.png,1\n", r"2 images that .* do not exist .*: a\.png, b\.png"),
        ("file_name,label\na.png,\n", r"has no label in the column 'label'; label the images"),
        ("file_name,label\na.png,1,2\n", r"line 2 has too many or too few values"),
        ("file_name,label\na.png\n", r"line 2 has too many or too few values"),
        ('file_name,label\n"a.png,1\n', r"line 1: unexpected end of data; correct the line"),
        ("file_name,label\na.png,Käfer\n".encode("latin-1"), r"is not UTF-8 text; save it as UTF-8"),
        (
            "file_name,label,split\na.png,1,val\nb.png,2,test\n",
            r"'split' of .* but holds 'val' and 'test' and no train",
        ),
        ("file_name,label,split\na.png,1,train\nb.png,2,0\n", r"'split' of .* looks like .* but holds '0'; say"),
        ("name,label\na.png,1\n", r"no column for the image"),
        ("file_name,label\n", r"lists no image"),
    ],
)
def test_incomplete_metadata_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    (tmp_path / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_metadata_may_lack_labels_and_hold_any_letter(tmp_path: Path) -> None:
    tree(tmp_path, "train/a.png", "train/b.png", "train/c.png", "test/d.png")
    lines = [("a", "ant\u2028queen"), ("b", "bee"), ("c", None)]
    text = "".join(json.dumps({"file_name": f"{n}.png", "label": x}, ensure_ascii=False) + "\n" for n, x in lines)
    metadata(tmp_path / "train", text, "metadata.jsonl")
    metadata(tmp_path / "test", '{"file_name": "d.png"}\n', "metadata.jsonl")
    listing = read(tmp_path)
    assert labels(listing) == {"train": [("train/a.png", "ant\u2028queen"), ("train/b.png", "bee")]}
    assert listing.notes == (
        f"test in {tmp_path} has no labels and is left out",
        f"left out 1 image of train in {tmp_path} without a label",
    )
    tree(tmp_path, "train/e.png", "train/.trash/f.png", ".g.png", "__MACOSX/h.png")
    assert read(tmp_path).notes[-1] == f"left out 1 image of {tmp_path} that no metadata lists"
    metadata(tmp_path / "test", "[1]\n", "metadata.jsonl")
    with pytest.raises(InputError, match=r"has the line '\[1\]', which is no JSON object"):
        read(tmp_path)


def test_minus_one_in_metadata_is_a_class_except_in_a_split_of_it(tmp_path: Path) -> None:
    tree(tmp_path, "train/a.png", "train/b.png", "train/c.png", "test/d.png", "test/e.png")
    metadata(tmp_path / "train", "file_name,label\na.png,-1\nb.png,0\nc.png,1\n")
    metadata(tmp_path / "test", "file_name,label\nd.png,-1\ne.png,-1\n")
    listing = read(tmp_path)
    assert (listing.classes, sizes(listing)) == (("-1", "0", "1"), {"train": 3})
    assert listing.notes[0] == f"test in {tmp_path} has no labels and is left out"
    metadata(tmp_path / "test", "file_name,label\nd.png,-1\ne.png,1\n")
    assert sizes(read(tmp_path)) == {"train": 3, "test": 2}


@pytest.mark.parametrize("extra", ["note", "category", "mask_file_name"])
@pytest.mark.parametrize("label", ["species", "label"])
def test_the_first_line_of_metadata_says_the_columns(tmp_path: Path, label: str, extra: str) -> None:
    tree(tmp_path, "a.png", "b.png")
    lines = [{"file_name": "a.png", label: "ant"}, {"file_name": "b.png", label: "bee", extra: "b.png"}]
    metadata(tmp_path, "".join(f"{json.dumps(line)}\n" for line in lines), "metadata.jsonl")
    assert labels(read(tmp_path)) == {"train": [("a.png", "ant"), ("b.png", "bee")]}


def test_images_of_other_columns_of_metadata_are_listed(tmp_path: Path) -> None:
    tree(tmp_path, "image/a.png", "image/b.png", "mask/a.png", "mask/b.png", "mask/c.png")
    text = "image_file_name,mask_file_name,label\nimage/a.png,mask/a.png,0\nimage/b.png,./mask/b.png,1\n"
    metadata(tmp_path, text)
    listing = read(tmp_path, image_column="image_file_name")
    assert listing.notes == (f"left out 1 image of {tmp_path} that no metadata lists",)


def test_a_missing_number_in_metadata_is_no_label(tmp_path: Path) -> None:
    tree(tmp_path, "a.png", "b.png", "c.png")
    rows = {"file_name": ["a.png", "b.png", "c.png"], "label": [0.0, float("nan"), 1.0]}
    pq.write_table(pa.table(rows), tmp_path / "metadata.parquet")
    listing = read(tmp_path)
    assert (listing.classes, sizes(listing)) == (("0", "1"), {"train": 2})
    assert listing.notes == (f"left out 1 image of train in {tmp_path} without a label",)


def test_pieces_that_are_missing_are_not_left_out(tmp_path: Path) -> None:
    for number in (0, 2):
        parquet(tmp_path / f"data/train-0000{number}-of-00004.parquet", label=[0, 1])
    with pytest.raises(
        InputError, match=r"lacks 2 of the 4 pieces of train, the first with the number 00001; download"
    ):
        read(tmp_path)
    parquet(tmp_path / "data/train-00000-of-00001.parquet", label=[0, 1])
    with pytest.raises(InputError, match=r"holds train in 1 and in 4 pieces; keep the files of one version"):
        read(tmp_path)


def test_a_piece_that_is_named_is_read_alone(tmp_path: Path) -> None:
    file = parquet(tmp_path / "data/train-00000-of-00002.parquet", label=[0, 1])
    assert sizes(read(file)) == {"train": 2}


PIECES = ("a/train-00000-of-00001", "b/train-00000-of-00002", "b/train-00001-of-00002")


@pytest.mark.parametrize(
    ("files", "patterns", "size"),
    [
        (PIECES, "[a/*.parquet, b/*.parquet]", 6),
        (PIECES, "b/train-00001-of-00002.parquet", 2),
        (PIECES[:2], "[a/*, b/train-00000-of-00002.parquet]", 4),
        (PIECES[1:], "[b/train-00000-of-*, b/train-00001-of-00002.parquet]", 4),
        (PIECES[1:], "b/train-0000[1-9]-of-00002.parquet", 2),
        (("d/partial-train-00000-of-00001", "d/train-00000-of-00002", "d/train-00001-of-00002"), "d/*", 6),
    ],
)
def test_pieces_count_by_folder_and_name_as_far_as_the_card_asks_for_them(
    tmp_path: Path, files: Sequence[str], patterns: str, size: int
) -> None:
    for file in files:
        parquet(tmp_path / f"{file}.parquet", label=[0, 1])
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- data_files:\n  - split: train\n    path: {patterns}\n---\n")
    assert sizes(read(tmp_path)) == {"train": size}


@pytest.mark.parametrize("patterns", ["[a/*, b/*]", "[b/train-00000-of-00002.parquet, b/train-00001-of-00002.parquet]"])
def test_pieces_that_the_card_asks_for_are_required(tmp_path: Path, patterns: str) -> None:
    for file in PIECES[:2]:
        parquet(tmp_path / f"{file}.parquet", label=[0, 1])
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- data_files:\n  - split: train\n    path: {patterns}\n---\n")
    with pytest.raises(
        InputError, match=r"lacks 1 of the 2 pieces of train, the first with the number 00001; download"
    ):
        read(tmp_path)


def test_partial_pieces_beside_whole_ones_are_complete(tmp_path: Path) -> None:
    for name in ("partial-train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"):
        parquet(tmp_path / f"data/{name}.parquet", label=[0, 1])
    assert sizes(read(tmp_path)) == {"train": 6}


def test_a_split_may_lack_the_column_of_the_label(tmp_path: Path) -> None:
    parquet(tmp_path / "data/test-00000-of-00001.parquet", {}, number=[1, 2])
    shard(tmp_path / "data", "train", [0, 1], {"label": ("ant", "bee")})
    listing = read(tmp_path)
    assert labels(listing) == {"train": [("train/00000000", "ant"), ("train/00000001", "bee")]}
    assert listing.notes == (f"test in {tmp_path} has no labels and is left out",)


def test_splits_that_number_their_classes_apart_are_refused(tmp_path: Path) -> None:
    shard(tmp_path / "data", "train", [0, 1], {"label": ("ant", "bee")})
    shard(tmp_path / "data", "test", [0, 1], {"label": ("bee", "ant")})
    with pytest.raises(InputError, match=r"the splits test and train of .* number the classes of 'label' differently"):
        read(tmp_path)


def test_splits_that_are_left_out_may_number_their_classes_apart(tmp_path: Path) -> None:
    shard(tmp_path / "data", "train", [0, 1], {"label": ("ant", "bee")})
    shard(tmp_path / "data", "extra", [0, 1], {"label": ("bee", "ant")})
    shard(tmp_path / "data", "test", [-1, -1], {"label": ("?", "!")})
    assert labels(read(tmp_path)) == {"train": [("train/00000000", "ant"), ("train/00000001", "bee")]}
    with pytest.raises(InputError, match=r"number the classes of 'label' differently"):
        read(tmp_path, splits={"train": ["train", "extra"]})


@pytest.mark.parametrize(("column", "stray"), [("set", "extra"), ("split", "0")])
def test_a_column_of_the_only_table_is_not_passed_over(tmp_path: Path, column: str, stray: str) -> None:
    values = {column: ["train", "train", stray, "test"]} if column == "set" else {column: ["1", "1", stray, "0"]}
    parquet(tmp_path / "all.parquet", label=[0, 1, 1, 1], **values)
    with pytest.raises(InputError, match=rf"the column '{column}' of .* looks like that of the split, but holds"):
        read(tmp_path)
    splits = {"test": stray} if column == "set" else {"train": 1, "test": 0}
    assert sizes(read(tmp_path, splits=splits)) == (
        {"train": 2, "test": 1} if column == "set" else {"train": 2, "test": 2}
    )


@pytest.mark.parametrize("values", ["Train train", "train training"])
def test_a_column_of_train_alone_divides_nothing(tmp_path: Path, values: str) -> None:
    first, second = values.split()
    parquet(tmp_path / "all.parquet", label=[0, 1], split=[first, second])
    assert sizes(read(tmp_path)) == {"train": 2}
    (tmp_path / "all.parquet").unlink()
    metadata(tmp_path, f"file_name,label,split\na.png,1,{first}\nb.png,2,{second}\n")
    tree(tmp_path, "a.png", "b.png")
    assert sizes(read(tmp_path)) == {"train": 2}


def test_images_to_validate_and_test_on_are_not_trained_on(tmp_path: Path) -> None:
    parquet(tmp_path / "all.parquet", label=[0, 1, 0, 1], split=["val", "val", "test", "test"])
    with pytest.raises(
        InputError, match=r"but holds 'val' and 'test' and no train; say .* train = \[\"val\", \"test\"\]"
    ):
        read(tmp_path)
    assert sizes(read(tmp_path, splits={"train": "val"})) == {"train": 2, "test": 2}
    assert sizes(read(tmp_path, splits={"train": ["val", "test"]})) == {"train": 4}


@pytest.mark.parametrize(("column", "value"), [("split", "test"), ("partition", "Validation"), ("fold", "eval")])
def test_a_column_that_says_that_no_image_is_train_is_refused(tmp_path: Path, column: str, value: str) -> None:
    parquet(tmp_path / "all.parquet", label=[0, 1], **{column: [value, value]})
    with pytest.raises(InputError, match=rf"'{column}' .* holds '{value}' alone and no train; if it divides nothing"):
        read(tmp_path)
    assert sizes(read(tmp_path, splits={"train": [value]})) == {"train": 2}
    (tmp_path / "all.parquet").unlink()
    metadata(tmp_path, f"file_name,label,{column}\na.png,1,{value}\nb.png,2,{value}\n")
    with pytest.raises(InputError, match=rf"'{column}' .* holds '{value}' alone and no train"):
        read(tmp_path)


def test_a_column_of_other_names_is_passed_over(tmp_path: Path) -> None:
    odd = ["train", "val", "unused", "test"]
    parquet(tmp_path / "all.parquet", label=[0, 1, 0, 1], fold=odd, original_split=odd)
    assert sizes(read(tmp_path)) == {"train": 4}


def test_the_column_of_the_label_is_not_that_of_the_split(tmp_path: Path) -> None:
    parquet(tmp_path / "all.parquet", subset=["train", "test", "extra"])
    assert sizes(read(tmp_path, label_column="subset")) == {"train": 3}


def test_labels_of_a_table_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    shard(tmp_path, "train", ["cat", "dog", "cat|dog"])
    task = get_task(f"hf:{tmp_path}")
    listing = HubDataset().listing(task, None)
    with pytest.raises(InputError, match=r"has the label 'cat\|dog', a list of labels"):
        numbered(task, listing)
    named = replace(task, class_names=("dog", "cat|dog", "cat"))
    assert numbered(named, listing).classes == named.class_names


def test_labels_of_metadata_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "a.png", "b.png", "c.png")
    metadata(tmp_path, "file_name,label\na.png,1|2\nb.png,1\nc.png,2\n")
    task = get_task(f"hf:{tmp_path}")
    with pytest.raises(InputError, match=r"has the label '1\|2', a list of labels"):
        numbered(task, HubDataset().listing(task, None))


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 6)
)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            f"{BOMB}dataset_info:\n  features:\n  - name: label\n    dtype: {{class_label: {{names: *a5}}}}\n",
            "aliases stand",
        ),
        ("a: &a {x: 1}\nb: &b {<<: [*a, *a], y: *b}\n", "aliases stand for more than 500000 values"),
        ("[" * 5000, "nested too deeply"),
        ("date: 2023-99-99\n", "one of its values cannot be read"),
    ],
)
def test_a_card_does_not_fill_the_memory(tmp_path: Path, header: str, message: str) -> None:
    shard(tmp_path / "data", "train", [0, 1])
    (tmp_path / "README.md").write_text(f"---\n{header}---\n")
    with pytest.raises(
        InputError, match=rf"begins with a header that is not YAML: .*{message}.*; correct it or remove it"
    ):
        read(tmp_path)


def test_a_card_of_odd_values_means_nothing(tmp_path: Path) -> None:
    shard(tmp_path / "data", "train", [0, 1])
    (tmp_path / "README.md").write_text("---\nconfigs: {default: x}\ndataset_info: [x, {features: [y]}]\n---\n")
    assert read(tmp_path).classes == ("0", "1")


def test_two_kinds_of_metadata_are_refused(tmp_path: Path) -> None:
    metadata(tmp_path, "file_name,label\n")
    metadata(tmp_path, "{}\n", "metadata.jsonl")
    with pytest.raises(InputError, match=r"metadata as \.csv and \.jsonl; keep one kind"):
        read(tmp_path)


def test_an_image_folder_without_metadata_is_read_by_its_folders(tmp_path: Path) -> None:
    tree(tmp_path, "train/ant/1.png", "train/bee/1.png", "test/ant/2.png")
    assert sizes(read(tmp_path)) == {"train": 2, "test": 1}


def test_a_missing_path_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist; name a folder, or a data set as in hf:OWNER/NAME"):
        read(tmp_path / "nowhere")


CODE = """
import sys
from pathlib import Path
from shipbench.data.formats.hub_dataset import HubDataset
from shipbench.errors import InputError
for name in sys.argv[1:]:
    try:
        listing = HubDataset().list(name, Path("/"), {})
        image = listing.images.read(listing.splits["test"][0].path)
        sizes = [len(split) for split in listing.splits.values()]
        print(listing.classes, sizes, len(image), len(listing.signatures))
    except InputError as error:
        print(error)
"""


# The hub's library waits 23 s in all between its attempts; no setting of it shortens that.
WITHOUT_WAITING = f"import time\ntime.sleep = lambda seconds: None\n{CODE}"


def look_up(tmp_path: Path, address: str, *names: str, code: str = CODE) -> list[str]:
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    process = subprocess.run(
        [sys.executable, "-c", code, *names], env=environment, capture_output=True, text=True, check=True
    )
    return process.stdout.splitlines()


def test_names_on_the_hub_are_downloaded_or_refused_in_one_sentence(tmp_path: Path) -> None:
    files = {}
    for split in ("train", "test"):
        stream = io.BytesIO(shard(tmp_path / "data", split, [0, 1], {"label": ["ant", "bee"]}).read_bytes())
        files[f"data/{split}-00000-of-00001.parquet"] = stream.getvalue()
    with serve(Hub({DATA_SET: files}, gated="locked/bugs")) as hub:
        lines = look_up(tmp_path, hub.address, REPO, f"{REPO}:other", "no/such", "locked/bugs")
    size = len(picture("test-00000-of-000010"))
    assert lines == [
        f"('ant', 'bee') [2, 2] {size} 4",
        f"{REPO} has no configuration 'other'; it has default",
        "hf:no/such does not exist on the hub or is private; check the name, or set HF_TOKEN if it is yours",
        "hf:locked/bugs needs a licence: accept it at huggingface.co/datasets/locked/bugs, then set HF_TOKEN or run "
        "'huggingface-cli login'",
    ]


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    (line,) = look_up(tmp_path, "http://127.0.0.1:9", "someone/else", code=WITHOUT_WAITING)
    assert line.startswith("hf:someone/else cannot be read from the hub: ")
    assert line.endswith("; check the name and the network, or name a local copy")
