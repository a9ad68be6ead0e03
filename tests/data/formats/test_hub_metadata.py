"""Image folders of ``hf:`` data sets, with metadata files and without."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shipbench.data.formats.hub_dataset import HubDataset
from shipbench.data.listings import numbered
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.formats.hub_tables import metadata, read
from tests.data.formats.trees import labels, sizes, tree


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


def test_damaged_metadata_in_parquet_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"metadata\.parquet is damaged or no Parquet file"):
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
    with pytest.raises(InputError, match=r"has the line '\[1\]', which is not a JSON object"):
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


def test_labels_of_metadata_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "a.png", "b.png", "c.png")
    metadata(tmp_path, "file_name,label\na.png,1|2\nb.png,1\nc.png,2\n")
    task = get_task(f"hf:{tmp_path}")
    with pytest.raises(InputError, match=r"has the label '1\|2', a list of labels"):
        numbered(task, HubDataset().listing(task, None))


def test_two_kinds_of_metadata_are_refused(tmp_path: Path) -> None:
    metadata(tmp_path, "file_name,label\n")
    metadata(tmp_path, "{}\n", "metadata.jsonl")
    with pytest.raises(InputError, match=r"metadata as \.csv and \.jsonl; keep one kind"):
        read(tmp_path)


def test_an_image_folder_without_metadata_is_read_by_its_folders(tmp_path: Path) -> None:
    tree(tmp_path, "train/ant/1.png", "train/bee/1.png", "test/ant/2.png")
    assert sizes(read(tmp_path)) == {"train": 2, "test": 1}
    with pytest.raises(InputError, match=r"read by its class folders, so 'label_column' means nothing; remove it"):
        read(tmp_path, label_column="species")
