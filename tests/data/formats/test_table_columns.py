"""``csv:PATH``: what the columns of published tables mean, and lists that name no class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shipbench.data.formats.csv_table import CsvTable
from shipbench.data.listings import Listing
from shipbench.errors import InputError
from tests.data.formats.trees import labels, sizes, table, tree


def read(path: Path, **options: Any) -> Listing:
    return CsvTable().list(str(path), Path("/"), options)


@pytest.mark.parametrize("label", ["ClassId", "labels", "class_name"])
def test_a_test_table_has_labels_under_the_further_names_too(tmp_path: Path, label: str) -> None:
    table(tmp_path, f"Path,{label}\na.png,3\nb.png,20\n", "Train.csv")
    table(tmp_path, f"Path,{label}\nc.png,20\n", "Test.csv")
    assert sizes(read(tmp_path)) == {"train": 2, "test": 1}


def test_a_test_table_without_the_chosen_label_is_left_out(tmp_path: Path) -> None:
    table(tmp_path, "image,breed\na.png,pug\nb.png,boxer\n", "train.csv")
    table(tmp_path, "image\nc.png\n", "test.csv")
    assert sizes(read(tmp_path, label_column="Breed")) == {"train": 2}


@pytest.mark.parametrize(("one", "zero"), [("1", "0"), ("1.0", "0.0"), ("True", "False")])
def test_columns_of_zeros_and_ones_are_the_classes(tmp_path: Path, one: str, zero: str) -> None:
    text = f", filename, MEL, NV,BCC\n0,a.png,{one}, {zero},{zero}\n1,b.png,{zero},{zero}, {one}\n"
    file = table(tmp_path, text)
    listing = read(file)
    assert labels(listing) == {"train": [("a.png", "MEL"), ("b.png", "BCC")]}
    assert listing.notes == (f"the classes of {file} are its columns MEL, NV, BCC, of which each image has one",)


def test_columns_of_zeros_and_ones_may_stand_beside_a_split(tmp_path: Path) -> None:
    rows = "a.png,train,1,0\nb.png,train,0,1\nc.png,test,0,1\n"
    assert labels(read(table(tmp_path, f"image,split,cat,dog\n{rows}"))) == {
        "train": [("a.png", "cat"), ("b.png", "dog")],
        "test": [("c.png", "dog")],
    }


def test_tables_of_zeros_and_ones_for_each_split_are_read_together(tmp_path: Path) -> None:
    table(tmp_path, "filename,cat,dog\na.png,1,0\nb.png,0,1\n", "train.csv")
    table(tmp_path, "filename,cat,dog\nc.png,0,1\n", "test.csv")
    assert labels(read(tmp_path))["test"] == [("c.png", "dog")]
    table(tmp_path, "filename,cat,dog\nc.png,0,0\n", "test.csv")
    assert sizes(read(tmp_path)) == {"train": 2}


def test_tables_in_the_folders_of_splits_are_read_together(tmp_path: Path) -> None:
    for split, names in {"train": "ab", "valid": "c", "test": "d"}.items():
        rows = "".join(f"{name}.png,{int(name != 'b')},{int(name == 'b')}\n" for name in names)
        table(tmp_path / split, f"filename, cat, dog\n{rows}", "_classes.csv")
    assert labels(read(tmp_path)) == {
        "train": [("train/a.png", "cat"), ("train/b.png", "dog")],
        "val": [("valid/c.png", "cat")],
        "test": [("test/d.png", "cat")],
    }
    assert sizes(read(tmp_path / "train" / "_classes.csv")) == {"train": 2}
    table(tmp_path / "test", "filename,cat\n", "other.csv")
    with pytest.raises(InputError, match=r"holds no table"):
        read(tmp_path)


@pytest.mark.parametrize("row", ["1,1", "0,0"])
def test_several_classes_or_none_in_a_row_are_refused(tmp_path: Path, row: str) -> None:
    file = table(tmp_path, f"image,cat,dog\na.png,1,0\nb.png,0,1\nc.png,{row}\n")
    with pytest.raises(InputError, match=r"1 row with several or none of the classes cat, dog, .* line 4"):
        read(file)
    assert read(file, label_column="dog").classes == ("0", "1")


def test_other_columns_beside_zeros_and_ones_ask_for_the_label(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column for the label .* label_column = \"\.\.\.\""):
        read(table(tmp_path, "image,cat,dog,age\na.png,1,0,7\nb.png,0,1,9\n"))
    with pytest.raises(InputError, match=r"no column for the label .* label_column = \"Smiling\""):
        read(table(tmp_path, "image,Smiling\na.png,1\nb.png,0\n"))


@pytest.mark.parametrize("column", ["is_test", "IsTest", "is test"])
def test_a_switch_tells_the_test_images(tmp_path: Path, column: str) -> None:
    text = f"image,label,{column}\na.png,x,0\nb.png,y,0\nc.png,x,1\n"
    assert sizes(read(table(tmp_path, text))) == {"train": 2, "test": 1}


@pytest.mark.parametrize("column", ["is_valid", "is_val", "is_validation"])
def test_a_switch_tells_the_validation_images(tmp_path: Path, column: str) -> None:
    file = table(tmp_path, f"image,label,{column}\na.png,x,False\nb.png,y,False\nc.png,x,True\n")
    with pytest.raises(InputError, match=r"a val split \(true\) but no test split"):
        read(file)
    assert sizes(read(file, splits={"test": "true"})) == {"train": 2, "test": 1}
    assert sizes(read(file, splits={"train": ["true", "false"]})) == {"train": 3}


@pytest.mark.parametrize("column", ["is_test", "Is Train", "is_valid"])
def test_a_column_called_as_a_switch_may_hold_names_of_splits(tmp_path: Path, column: str) -> None:
    text = f"image,label,{column}\na.png,x,train\nb.png,y,train\nc.png,x,test\n"
    assert sizes(read(table(tmp_path, text))) == {"train": 2, "test": 1}


def test_a_switch_beside_a_split_or_without_both_values_decides_nothing(tmp_path: Path) -> None:
    beside = "image,label,split,is_test\na.png,x,train,1\nb.png,y,train,0\nc.png,x,test,0\n"
    assert sizes(read(table(tmp_path, beside))) == {"train": 2, "test": 1}
    usage = "image,label,usage,is_test\na.png,x,train,1\nb.png,y,train,0\nc.png,x,test,0\n"
    assert sizes(read(table(tmp_path, usage))) == {"train": 2, "test": 1}
    for values in ("00", "11", "0x"):
        text = f"image,label,is_test\na.png,x,{values[0]}\nb.png,y,{values[1]}\n"
        assert sizes(read(table(tmp_path, text))) == {"train": 2}
    with pytest.raises(InputError, match=r"could be the split \(is_valid, is_test\)"):
        read(table(tmp_path, "image,label,is_valid,is_test\na.png,x,0,1\nb.png,y,1,0\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,pixel1,pixel2\n0,7,7\n", r"holds pixels, not names of files; save each image as a file"),
        ("label,1x1,1x2\n0,7,7\n", r"holds pixels"),
        ("emotion,pixels,Usage\n0,7 7 7,Training\n", r"holds pixels"),
        ('[{"image": "a.png", "label": 1}]', r"is JSON, not a table; write a table with a row per image"),
        ('{"image": "a.png", "label": 1}\n', r"is JSON, not a table"),
        (
            "Abyssinian_1 1 1 1\nBengal_1 2 1 2\n",
            r"'Abyssinian_1 1 1 1' in the first line; .* as in image,label, or .* a path with its",
        ),
    ],
)
def test_what_is_no_table_of_images_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "labels.csv")


def test_columns_may_be_divided_by_bars(tmp_path: Path) -> None:
    tree(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("image|label\na.png|cat\nb.png|dog\n")
    assert read(tmp_path / "labels.csv").classes == ("cat", "dog")


def test_images_of_a_list_without_labels_have_the_class_of_their_folder(tmp_path: Path) -> None:
    tree(tmp_path / "images", "apple pie/1.jpg", "apple pie/a 2.jpg", "a/bun/1.jpg", "a/bun/2.jpg")
    (tmp_path / "train.txt").write_text("/apple pie/1.jpg\n\na/bun/1.jpg\n")
    (tmp_path / "test.txt").write_text("apple pie/a 2.jpg\na/bun/2.jpg\n")
    for location in (f"{tmp_path}:images", f"{tmp_path}/train.txt:images"):
        listing = CsvTable().list(location, tmp_path, {})
        assert labels(listing) == {
            "train": [("apple pie/1.jpg", "apple pie"), ("a/bun/1.jpg", "a/bun")],
            "test": [("apple pie/a 2.jpg", "apple pie"), ("a/bun/2.jpg", "a/bun")],
        }
        assert listing.notes == (
            f"test.txt, train.txt in {tmp_path} have no labels, so the folder of an image is its class",
        )


def test_a_list_without_labels_or_suffixes_gets_both(tmp_path: Path) -> None:
    tree(tmp_path, "pie/1.jpg", "bun/2.jpg")
    (tmp_path / "all.lst").write_text("pie/1\nbun/2\n")
    assert labels(read(tmp_path / "all.lst")) == {"train": [("pie/1.jpg", "pie"), ("bun/2.jpg", "bun")]}


def test_lists_may_be_called_after_images_of_splits(tmp_path: Path) -> None:
    tree(tmp_path, "bar/1.jpg", "pub/1.jpg", "bar/2.jpg")
    (tmp_path / "TrainImages.txt").write_text("bar/1.jpg\npub/1.jpg\n")
    (tmp_path / "TestImages.txt").write_text("bar/2.jpg\n")
    assert sizes(read(tmp_path)) == {"train": 2, "test": 1}


def test_lists_with_and_without_labels_are_not_mixed(tmp_path: Path) -> None:
    for name, line in {"train": "pie/a.png 0", "test": "pie/b.png"}.items():
        (tmp_path / f"{name}.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"test\.txt lists images without labels; add a label to each line"):
        read(tmp_path)
    (tmp_path / "train.txt").write_text("pie/a.png\n7 2\n")
    with pytest.raises(InputError, match=r"train\.txt, line 2: expected a folder and an image in it, found '7 2'"):
        read(tmp_path / "train.txt")


def test_a_test_table_with_another_label_than_the_chosen_one_is_refused(tmp_path: Path) -> None:
    table(tmp_path, "image,breed\na.png,pug\nb.png,boxer\n", "train.csv")
    table(tmp_path, "image,label\nc.png,pug\n", "test.csv")
    with pytest.raises(InputError, match=r"test\.csv has no column 'breed' \(label_column\)"):
        read(tmp_path, label_column="breed")


def test_a_test_table_without_labels_may_say_that_it_is_one(tmp_path: Path) -> None:
    table(tmp_path, "image,label\na.png,pug\nb.png,boxer\n", "train.csv")
    table(tmp_path, "image,partition\nc.png,test\n", "test.csv")
    assert sizes(read(tmp_path)) == {"train": 2}


def test_names_of_columns_may_be_in_brackets(tmp_path: Path) -> None:
    file = table(tmp_path, "[image],[label]\na.png,pug\nb.png,boxer\n")
    assert sizes(read(file, image_column="[image]", label_column="[label]")) == {"train": 2}
