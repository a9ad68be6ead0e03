"""``folder:PATH``: the layouts of image folders that people use, and the ambiguous ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shipbench.data.formats.image_folder import ImageFolder
from shipbench.data.listings import Listing
from shipbench.errors import InputError
from tests.data.formats.trees import labels, sizes, tree

FLAT = ("Bird/b.png", "Bird/a.jpg", "ant/c.png")
SPLITS = ("train/ant/1.png", "train/bee/1.png", "test/ant/2.png", "test/bee/2.png")


def read(folder: Path, **options: Any) -> Listing:
    return ImageFolder().list(str(folder), Path("/"), options)


def test_folders_are_classes_by_code_point_and_images_are_sorted(tmp_path: Path) -> None:
    listing = read(tree(tmp_path, *FLAT, "10/x.png", "2/x.png"))
    assert listing.classes == ("10", "2", "Bird", "ant")
    assert [entry.path for entry in listing.splits["train"]] == [
        "10/x.png",
        "2/x.png",
        "Bird/a.jpg",
        "Bird/b.png",
        "ant/c.png",
    ]


def test_a_location_is_relative_to_the_base_or_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path / "bugs", *FLAT)
    assert sizes(ImageFolder().list("bugs", tmp_path, {})) == {"train": 3}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sizes(ImageFolder().list("~/bugs", tmp_path / "elsewhere", {})) == {"train": 3}
    with pytest.raises(InputError, match="~nobody-has-this-name/bugs"):
        ImageFolder().list("~nobody-has-this-name/bugs", tmp_path, {})


def test_images_lie_at_any_depth_and_suffixes_have_any_case(tmp_path: Path) -> None:
    listing = read(tree(tmp_path, "ant/2020/may/a.JPG", "ant/b.png", "bee/c.JPEG", "bee/d.jfif"))
    assert labels(listing)["train"] == [
        ("ant/2020/may/a.JPG", "ant"),
        ("ant/b.png", "ant"),
        ("bee/c.JPEG", "bee"),
        ("bee/d.jfif", "bee"),
    ]


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("train", "val", "test"), ("train", "val", "test")),
        (("Training", "Validation", "Testing"), ("train", "val", "test")),
        (("TRAIN", "dev", "eval"), ("train", "val", "test")),
        (("train", "valid", "evaluation"), ("train", "val", "test")),
    ],
)
def test_split_folders_go_by_many_names(tmp_path: Path, names: tuple[str, ...], roles: tuple[str, ...]) -> None:
    listing = read(tree(tmp_path, *(f"{name}/{label}/1.png" for name in names for label in ("ant", "bee"))))
    assert sizes(listing) == dict.fromkeys(roles, 2)
    assert listing.classes == ("ant", "bee")


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "test_set"),
        ("TrainSet", "testdata"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/train", "test/test"),
    ],
)
def test_split_folders_of_archives_have_longer_names_or_are_doubled(tmp_path: Path, names: tuple[str, ...]) -> None:
    paths = [f"{name}/{label}/1.png" for name in names for label in ("ant", "bee")]
    listing = read(tree(tmp_path, *paths))
    assert (listing.classes, sizes(listing)) == (("ant", "bee"), {"train": 2, "test": 2})


def test_folders_beside_the_splits_of_an_archive_are_left_out(tmp_path: Path) -> None:
    paths = [f"{name}/{label}/1.png" for name in ("seg_train", "seg_test") for label in ("ant", "bee")]
    listing = read(tree(tmp_path, *paths, "seg_pred/1.png"))
    assert (sizes(listing), "left out 1 folder" in listing.notes[0]) == ({"train": 2, "test": 2}, True)


def test_classes_with_the_name_of_a_split_in_theirs_stay_classes(tmp_path: Path) -> None:
    folder = tree(tmp_path, "steam train/red/1.png", "steam train/blue/1.png", "test car/red/1.png", "bus/1.png")
    assert read(folder).classes == ("bus", "steam train", "test car")
    nested = tree(tmp_path / "nested", "train/ant/a/1.png", "train/bee/1.png", "test/ant/a/1.png")
    assert labels(read(nested))["test"] == [("test/ant/a/1.png", "ant")]


def test_wrappers_and_metadata_of_archives_are_stepped_over(tmp_path: Path) -> None:
    wrapped = tree(tmp_path, *(f"bugs-master/data/{path}" for path in SPLITS), "__MACOSX/bugs/._1.png", "README.md")
    assert sizes(read(wrapped)) == {"train": 2, "test": 2}


def test_a_lone_train_folder_is_a_split_without_test(tmp_path: Path) -> None:
    listing = read(tree(tmp_path, "train/ant/1.png", "train/bee/1.png"))
    assert (listing.classes, sizes(listing)) == (("ant", "bee"), {"train": 2})


def test_skipped_files_are_counted_by_kind(tmp_path: Path) -> None:
    folder = tree(tmp_path, *FLAT, "Bird/Thumbs.db", "ant/.hidden.png", "ant/notes.txt", "loose.png", ".git/x.png")
    assert read(folder).notes == (
        "skipped 2 files that are not images and 2 hidden files or folders and 1 image outside the class folders",
    )


def test_images_of_other_kinds_are_said_apart(tmp_path: Path) -> None:
    folder = tree(tmp_path, *FLAT, "ant/Thumbs.db", "ant/IMG_1.HEIC", "ant/x.avif", "Bird/y.avif")
    assert read(folder).notes == (
        "skipped 1 file that is not an image and 3 images of a kind that is not read (.avif, .heic: convert to PNG or "
        "JPEG)",
    )


def test_links_to_folders_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    folder = tree(tmp_path / "data", *FLAT)
    tree(tmp_path / "more", "d.png")
    (folder / "ant" / "more").symlink_to(tmp_path / "more")
    (folder / "ant" / "self").symlink_to(folder / "ant")
    assert [entry.path for entry in read(folder).splits["train"]][-2:] == ["ant/c.png", "ant/more/d.png"]


def test_links_between_two_folders_are_no_circle(tmp_path: Path) -> None:
    folder = tree(tmp_path, "ant/a.png", "bee/b.png")
    (folder / "ant" / "others").symlink_to(folder / "bee")
    (folder / "bee" / "others").symlink_to(folder / "ant")
    assert [entry.path for entry in read(folder).splits["train"]] == [
        *("ant/a.png", "ant/others/b.png"),
        *("bee/b.png", "bee/others/a.png"),
    ]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((*SPLITS, "wasp/1.png"), r"folders named after splits \(test, train\) beside others \(wasp\).*layout = "),
        (("train/a/1.png", "train/b/1.png", "val/a/1.png"), r"a val split \(val\) but no test split; .*splits = "),
        (("train/a/1.png", "training/a/1.png", "train/b/1.png"), r"several train splits \(train, training\)"),
        (("train/1.png", "test/2.png"), r"test, train in .* hold no class folders"),
        (("train2017/1.png", "val2017/2.png"), r"train2017, val2017 in .* hold no class folders"),
        (("train_images/1.png", "test_images/2.png"), r"test_images, train_images in .* hold no class folders"),
        (("ant/1.png",), r"the single class 'ant'"),
        ((*FLAT, "wasp/notes.txt"), r"1 class folder of .* without any image: wasp"),
        (("1.png", "2.png"), r"holds 2 images but no class folders"),
        (("readme.txt",), r"has no class folders; it needs a folder with images for each class"),
        (("images.csv", "1.png"), r"if images\.csv holds the labels, name it csv:"),
        (("arrays.npz", "1.png"), r"if arrays\.npz holds images and labels, name it npz:"),
        (("data.parquet",), r"looks like a Hugging Face data set: name it hf:"),
        (
            ("train/metadata.csv", "train/a/1.png", "train/b/1.png"),
            r"labels of a Hugging Face image folder; name it hf:",
        ),
    ],
)
def test_a_layout_that_decides_nothing_is_refused(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tree(tmp_path, *paths))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((*SPLITS, "test/wasp/1.png"), r"1 class without images in train: wasp (only in test)"),
        (("val/a/1.png", "test/a/1.png", "test/b/1.png"), r"no train split (its splits: test, val)"),
    ],
)
def test_what_nothing_can_be_trained_on_is_listed(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    listing = read(tree(tmp_path, *paths))
    assert sum(sizes(listing).values()) == len(paths)
    assert message in listing.untrainable


def test_a_missing_folder_and_an_archive_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        read(tmp_path / "nowhere")
    tree(tmp_path, "bugs.zip")
    with pytest.raises(InputError, match=r"bugs\.zip is a file, not a folder; unpack it"):
        read(tmp_path / "bugs.zip")


def test_the_task_file_says_what_val_is(tmp_path: Path) -> None:
    folder = tree(tmp_path, *(f"{split}/{label}/1.png" for split in ("train", "val") for label in "ab"))
    assert sizes(read(folder, splits={"test": "val"})) == {"train": 2, "test": 2}
    assert sizes(read(folder, splits={"val": "val"})) == {"train": 2, "val": 2}


def test_the_task_file_says_what_the_folders_at_the_top_are(tmp_path: Path) -> None:
    folder = tree(tmp_path, *SPLITS, "wasp/x/1.png")
    assert sizes(read(folder, layout="splits")) == {"train": 2, "test": 2}
    assert read(folder, layout="classes").classes == ("test", "train", "wasp")
    with pytest.raises(InputError, match="layout = 'flat' in the task file is unknown"):
        read(folder, layout="flat")


def test_splits_of_any_name_are_chosen_in_the_task_file(tmp_path: Path) -> None:
    folder = tree(tmp_path, "day/a/1.png", "day/b/1.png", "dusk/a/2.png", "dusk/b/2.png", "night/a/1.png")
    listing = read(folder, splits={"train": ["day", "dusk"], "test": "night"})
    assert sizes(listing) == {"train": 4, "test": 1}
    with pytest.raises(InputError, match=r"splits\.test in the task file names 'noon', but the splits .* day, dusk"):
        read(folder, splits={"train": "day", "test": "noon"})
    with pytest.raises(InputError, match="uses 'day' as train and as test"):
        read(folder, splits={"train": "day", "test": "day"})


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"folder sources read no key 'split' of the task file \(did you mean 'splits'"
    ):
        read(tree(tmp_path, *FLAT), split={})


def test_a_split_without_class_folders_is_left_out(tmp_path: Path) -> None:
    listing = read(tree(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png"))
    assert sizes(listing) == {"train": 2}
    assert "test in " in listing.notes[0]
    assert "no labels, and is left out" in listing.notes[0]


def test_a_class_that_val_lacks_is_noted_and_keeps_its_number(tmp_path: Path) -> None:
    listing = read(tree(tmp_path, *SPLITS, "val/bee/1.png"))
    assert [entry.label for entry in listing.splits["val"]] == [1]
    assert any("val has no image of 1 class" in note for note in listing.notes)


def test_every_image_has_the_file_that_holds_it(tmp_path: Path) -> None:
    listing = read(tree(tmp_path, *FLAT))
    assert listing.signatures == {path: tmp_path / path for path in ("Bird/a.jpg", "Bird/b.png", "ant/c.png")}


def test_tiff_images_are_read_and_stand_upright(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    tree(tmp_path, "ant/1.png", "bee/1.png")
    Image.fromarray(pixels).save(tmp_path / "ant" / "2.TIF", "TIFF")
    Image.fromarray(pixels).save(tmp_path / "bee" / "2.tiff", "TIFF", tiffinfo={0x0112: 6})
    listing = read(tmp_path)
    assert np.array_equal(np.asarray(listing.picture("ant/2.TIF"))[..., 0], pixels)
    assert np.array_equal(np.asarray(listing.picture("bee/2.tiff"))[..., 0], np.rot90(pixels, -1))
