"""``folder:PATH``: layouts in which the class folders are not where they are expected."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from shipbench.data.formats.image_folder import ImageFolder
from shipbench.data.listings import Listing, numbered
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.formats.trees import labels, sizes, tree


def read(folder: Path, **options: Any) -> Listing:
    return ImageFolder().list(str(folder), Path("/"), options)


def test_splits_may_lie_in_the_class_folders(tmp_path: Path) -> None:
    folder = tree(tmp_path, "cat/train/1.png", "cat/Test/2.png", "dog/train/a/3.png", "notes.txt")
    listing = read(folder)
    assert labels(listing) == {
        "train": [("cat/train/1.png", "cat"), ("dog/train/a/3.png", "dog")],
        "test": [("cat/Test/2.png", "cat")],
    }
    assert listing.notes[0] == f"the folders Test, train in the class folders of {folder} are read as splits"
    assert sizes(read(folder, layout="classes")) == {"train": 3}


def test_what_val_in_the_class_folders_is_has_to_be_said(tmp_path: Path) -> None:
    folder = tree(tmp_path, *(f"{name}/{split}/1.png" for name in ("cat", "dog") for split in ("train", "val")))
    with pytest.raises(InputError, match=r"a val split \(val\) but no test split"):
        read(folder)
    assert sizes(read(folder, splits={"test": "val"})) == {"train": 2, "test": 2}


def test_domains_with_splits_of_classes_are_noted(tmp_path: Path) -> None:
    domains = [
        f"{domain}/{split}/{name}" for domain in ("art", "photo") for split in ("train", "test") for name in "ab"
    ]
    folder = tree(tmp_path, *(f"{domain}/1.png" for domain in domains))
    listing = read(folder)
    assert (listing.classes, sizes(listing)) == (("art", "photo"), {"train": 8})
    assert f"if these are the classes, name one folder, as in folder:{folder}/art" in listing.notes[0]


def test_splits_in_class_folders_that_are_not_used_are_noted(tmp_path: Path) -> None:
    splits = ("train", "val", "test")
    folder = tree(tmp_path, *(f"{name}/{split}/1.png" for name in ("cat", "dog") for split in splits))
    listing = read(folder, splits={"test": "val"})
    assert sizes(listing) == {"train": 2, "test": 2}
    assert f"left out 1 split of {folder}: test" in listing.notes


def test_a_class_folder_whose_splits_have_no_image_is_refused(tmp_path: Path) -> None:
    folder = tree(tmp_path, "cat/train/1.png", "cat/test/2.png", "dog/train/3.png", "eel/train/notes.txt")
    with pytest.raises(InputError, match=r"1 class folder of .* without any image: eel; add images"):
        read(folder)


@pytest.mark.parametrize("stray", ["cat/1.png", "cat/other/1.png", "eel/1.png", "eel/"])
def test_folders_named_after_splits_are_none_beside_others(tmp_path: Path, stray: str) -> None:
    folder = tree(tmp_path, "cat/train/1.png", "cat/test/2.png", "dog/train/3.png", "dog/test/4.png")
    if stray.endswith("/"):
        (folder / stray).mkdir()
        with pytest.raises(InputError, match=r"1 class folder of .* without any image: eel"):
            read(folder)
    else:
        assert set(sizes(read(tree(folder, stray)))) == {"train"}


@pytest.mark.parametrize("names", [("train", "train"), ("test", "test")])
def test_folders_of_one_split_divide_nothing(tmp_path: Path, names: tuple[str, str]) -> None:
    assert sizes(read(tree(tmp_path, f"cat/{names[0]}/1.png", f"dog/{names[1]}/2.png"))) == {"train": 2}


def test_folders_that_recur_in_every_class_are_noted(tmp_path: Path) -> None:
    folder = tree(tmp_path, *(f"{domain}/{name}/1.png" for domain in ("art", "photo", "sketch") for name in "ab"))
    assert read(folder).notes == (
        f"every class folder of {folder} holds a, b; if these are the classes, name one folder, as in folder:{folder}/"
        'art, or use several as splits: splits = { train = "art", test = "sketch" }',
    )
    assert sizes(read(folder, splits={"train": ["art", "photo"], "test": "sketch"})) == {"train": 4, "test": 2}
    images = tree(tmp_path / "images", "Test_Images/a/1.png", "Train_Images/a/1.png", "Train_Images/b/1.png")
    assert 'splits = { train = "Train_Images", test = "Test_Images" }' in read(images).notes[0]


def test_folders_below_the_classes_are_noted_where_no_class_has_images_of_its_own(tmp_path: Path) -> None:
    folder = tree(tmp_path, "animals/cat/1.png", "animals/dog/1.png", "plants/oak/1.png")
    assert read(folder).notes == (
        f"the classes are the folders in {folder}; the folders below them (cat, dog, oak) are not told apart",
    )
    for stray in ("plants/1.png", "stones/1.png"):
        other = tree(tmp_path / stray[:6], "animals/cat/1.png", "animals/dog/1.png", "plants/oak/1.png", stray)
        assert read(other).notes == ()
    assert read(tree(tmp_path / "dates", "cat/2019/1.png", "dog/2020/1.png")).notes == ()


def test_folders_below_the_classes_of_a_split_are_noted(tmp_path: Path) -> None:
    classes = ("animals/cat", "animals/dog", "plants/dog", "plants/oak")
    folder = tree(tmp_path, *(f"{split}/{name}/1.png" for split in ("train", "test") for name in classes))
    note = f"the classes are the folders in {folder}/train; the folders below them (cat, dog, oak) are not told apart"
    assert read(folder).notes == (note,)
    assert read(tree(tmp_path / "deep", *(f"train/{name}/images/1.png" for name in ("cat", "dog")))).notes == ()
    assert read(tree(tmp_path / "own", "train/cat/1.png", *(f"train/{name}/1.png" for name in classes))).notes == ()
    one = tree(tmp_path / "one", *(f"{split}/animals/{name}/1.png" for split in ("train", "test") for name in "ab"))
    with pytest.raises(
        InputError, match=r"all images one class; the classes are .*one/train; the folders .*\(a, b\) are"
    ):
        read(one)


@pytest.mark.parametrize("name", ["images", "unknown", "test"])
def test_a_split_with_a_lone_folder_of_unsorted_images_has_no_labels(tmp_path: Path, name: str) -> None:
    folder = tree(tmp_path, "train/ant/images/1.png", "train/bee/images/1.png", f"test/{name}/1.png")
    listing = read(folder)
    assert sizes(listing) == {"train": 2}
    assert listing.notes == (f"test in {folder} has no class folders, so no labels, and is left out",)


def test_a_lone_class_in_test_is_a_class(tmp_path: Path) -> None:
    known = tree(tmp_path / "known", "train/images/1.png", "train/bee/1.png", "test/images/2.png")
    assert sizes(read(known)) == {"train": 2, "test": 1}
    new = read(tree(tmp_path / "new", "train/ant/1.png", "train/bee/1.png", "test/wasp/2.png"))
    assert "without images in train: wasp (only in test)" in new.untrainable


@pytest.mark.parametrize("files", [("train.csv", "test.csv"), ("TrainImages.txt", "TestImages.txt")])
def test_tables_that_may_say_the_splits_are_noted(tmp_path: Path, files: tuple[str, str]) -> None:
    folder = tree(tmp_path, "images/ant/1.png", "images/bee/1.png", *files)
    note = f"{files[1]}, {files[0]} in {folder} may say which images are for training and testing: csv:{folder}"
    assert note in read(folder).notes
    (folder / files[1]).unlink()
    assert note not in read(tree(folder, "classes.txt")).notes
    divided = tree(
        tmp_path / "divided", *(f"{split}/{name}/1.png" for split in ("train", "test") for name in "ab"), *files
    )
    assert "may say" not in " ".join(read(divided).notes)


def test_accented_letters_of_one_character_or_two_are_one_class(tmp_path: Path) -> None:
    composed, divided = (unicodedata.normalize(form, "Löwe") for form in ("NFC", "NFD"))
    listing = read(tree(tmp_path, f"train/{divided}/1.png", "train/Hund/1.png", f"test/{composed}/2.png"))
    assert labels(listing)["test"] == [(f"test/{composed}/2.png", composed)]
    assert listing.classes == ("Hund", composed)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_task_file_may_write_accented_letters_in_both_ways(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    listing = read(tree(tmp_path, "Hund/1.png", f"{unicodedata.normalize('NFD', 'Löwe')}/1.png"))
    task = replace(get_task(f"folder:{tmp_path}"), class_names=(unicodedata.normalize(form, "Löwe"), "Hund"))
    assert [entry.label for entry in numbered(task, listing).splits["train"]] == [1, 0]


def test_classes_that_differ_in_case_alone_are_said(tmp_path: Path) -> None:
    folder = tree(tmp_path, "Cat/1.png", "cat/1.png", "dog/1.png")
    assert read(folder).notes == (f"{folder} has the classes Cat and cat, which differ in case alone",)
    for name in ("cat", "Cat "):
        instead = f"train has 'Cat' in place of '{name}', so spell the class the same way everywhere"
        divided = tree(tmp_path / f"splits {name}", "train/Cat/1.png", "train/dog/1.png", f"test/{name}/2.png")
        assert f"{name} (only in test); {instead}" in read(divided).untrainable


def test_folders_of_systems_hold_no_images(tmp_path: Path) -> None:
    extra = ("cat/@eaDir/1.png/THUMB.jpg", "@eaDir/x/THUMB.jpg", "$RECYCLE.BIN/1.png", "lost+found/1.png")
    listing = read(tree(tmp_path, "cat/1.png", "dog/1.png", *extra))
    assert (listing.classes, sizes(listing)) == (("cat", "dog"), {"train": 2})


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("images/a/1.png", "images/b/1.png", "meta/x.txt"), r"meta; .* if the classes are in images, name it folder:"),
        (("train/1.png", "labels.csv"), r"if labels\.csv holds the labels, name it csv:.*labels\.csv"),
        (("img/1.png", "labels.csv"), r"one class; if labels\.csv holds the labels, name it csv:.*labels\.csv"),
        (("img/1.png", "text/x.txt", "a.csv", "b.csv"), r"if a\.csv, b\.csv hold the labels, name them csv:"),
        (("train-0.tar", "test-0.tar"), r"has no class folders but archives \(test-0\.tar, train-0\.tar\); unpack"),
        (("data_batch_1", "meta"), r"a folder with images for each class; it holds data_batch_1, meta"),
    ],
)
def test_a_folder_of_something_else_names_the_way_out(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tree(tmp_path, *paths))
