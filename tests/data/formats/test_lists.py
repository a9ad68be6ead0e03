"""Folders whose labels are in list files: CoOp, VPT, NOAH, VTAB-1k."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shipbench.data.formats.image_folder import ImageFolder
from shipbench.data.listings import Listing
from shipbench.errors import InputError
from tests.data.builders import vtab_tree
from tests.data.formats.trees import labels, sizes, tree

IMAGES = tuple(f"{number}.png" for number in range(6))


def read(folder: Path, **options: Any) -> Listing:
    return ImageFolder().list(str(folder), Path("/"), options)


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def coop(folder: Path, train: list[list[object]], **others: list[list[object]]) -> Path:
    return write(folder, split_zhou_Bugs={"train": train, "val": [], "test": [], **others})


def test_coop_brings_class_names_and_paths_may_start_with_a_slash(tmp_path: Path) -> None:
    tree(tmp_path / "images", *IMAGES)
    coop(tmp_path, [["/0.png", 1, "bee"], ["1.png", 0, "wasp"]], test=[["2.png", 1, "bee"]])
    listing = read(tmp_path)
    assert listing.classes == ("wasp", "bee")
    assert labels(listing) == {"train": [("0.png", "bee"), ("1.png", "wasp")], "test": [("2.png", "bee")]}


def test_several_lists_of_coop_may_have_one_role(tmp_path: Path) -> None:
    tree(tmp_path, *IMAGES)
    coop(tmp_path, [["0.png", 0, "bee"], ["1.png", 1, "wasp"]], val=[["2.png", 0, "bee"]], test=[["3.png", 1, "wasp"]])
    listing = read(tmp_path, splits={"train": ["train", "val"]})
    assert labels(listing)["train"] == [("0.png", "bee"), ("1.png", "wasp"), ("2.png", "bee")]
    assert sizes(listing) == {"train": 3, "test": 1}


def test_a_label_with_two_names_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, *IMAGES)
    with pytest.raises(InputError, match=r"train, item 1: label 0 is called 'wasp' and 'bee'"):
        read(coop(tmp_path, [["0.png", 0, "bee"], ["1.png", 0, "wasp"]]))


def test_several_coop_files_ask_for_one(tmp_path: Path) -> None:
    tree(tmp_path, *IMAGES)
    write(tmp_path, split_zhou_A={"train": []}, split_zhou_B={"train": [["0.png", 0, "a"], ["1.png", 1, "b"]]})
    with pytest.raises(InputError, match=r'choose one in the task file: list = "split_zhou_A\.json"'):
        read(tmp_path)
    assert read(tmp_path, list="split_zhou_B.json").classes == ("a", "b")


def test_class_ids_are_numbered_over_the_union_of_splits(tmp_path: Path) -> None:
    tree(tmp_path / "images", *IMAGES)
    listing = read(
        write(tmp_path, train={"0.png": "10", "1.png": 2, "2.png": 700.0}, val={"3.png": 700}, test={"4.png": 2})
    )
    assert listing.classes == ("2", "10", "700")
    assert [entry.label for entry in listing.splits["train"]] == [1, 0, 2]
    assert [entry.label for entry in listing.splits["val"]] == [2]


def test_a_share_of_the_training_data_is_chosen_by_name(tmp_path: Path) -> None:
    tree(tmp_path, *IMAGES)
    write(tmp_path, train={"0.png": 0, "1.png": 1, "2.png": 1}, test={"3.png": 1})
    write(tmp_path, **{"train_0.1": {"0.png": 0, "1.png": 1}})
    assert sizes(read(tmp_path)) == {"train": 3, "test": 1}
    assert sizes(read(tmp_path, splits={"train": "train_0.1"})) == {"train": 2, "test": 1}


def test_an_image_with_two_labels_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, *IMAGES)
    with pytest.raises(InputError, match=r"1 image with more than one label \(0\.png\)"):
        read(write(tmp_path, train={"0.png": 0, "1.png": 1}, test={"0.png": 1}))


SWAPPED = {
    "train": {"ant/1.png": 0, "bee/1.png": 1, "fly/1.png": 2},
    "val": {"ant/2.png": 0},
    "test": {"ant/9.png": 0, "bee/9.png": 2, "fly/9.png": 1},
}


def test_splits_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, *(path for split in SWAPPED.values() for path in split))
    message = r"images in 'bee' have the label . in t\w+ and . in t\w+; give each class the same label"
    write(tmp_path, **SWAPPED)
    with pytest.raises(InputError, match=message):
        read(tmp_path)
    # In the role of train, the two files are one list.
    with pytest.raises(InputError, match=message):
        read(tmp_path, splits={"train": ["train", "test"], "test": "val"})
    write(tmp_path, test={"ant/9.png": 0, "bee/9.png": 1})
    assert read(tmp_path).classes == ("ant", "bee", "fly")


def test_lines_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    tree(tmp_path / "images", *(path for split in SWAPPED.values() for path in split))
    (tmp_path / "annotations").mkdir()
    for name, content in SWAPPED.items():
        lines = "".join(f"{path} {label}\n" for path, label in content.items())
        (tmp_path / "annotations" / f"{name}_meta.list").write_text(lines)
    with pytest.raises(InputError, match=r"images in 'bee' have the label 2 in test_meta\.list and 1 in train_meta"):
        read(tmp_path)


def test_folders_that_are_no_classes_may_have_any_label(tmp_path: Path) -> None:
    train = {"site1/1.png": 0, "site1/2.png": 1, "site2/1.png": 1}
    tree(tmp_path, *train, "site1/9.png", "site2/9.png", "a.png", "b.png")
    for test in ({"site1/9.png": 1, "site2/9.png": 0}, {"site2/9.png": 0}, {"a.png": 1, "b.png": 0}):
        assert read(write(tmp_path, train=train, test=test)).classes == ("0", "1")
    tree(tmp_path, "train1/1.png", "train2/1.png", "test1/1.png", "test2/1.png")
    train, test = ({f"{split}1/1.png": 0, f"{split}2/1.png": 1} for split in ("train", "test"))
    assert read(write(tmp_path, train=train, test=test)).classes == ("0", "1")


def test_another_object_is_no_list(tmp_path: Path) -> None:
    tree(tmp_path, *IMAGES)
    with pytest.raises(
        InputError, match=r"train\.json is not an object from image path to class id; .* write layout = "
    ):
        read(write(tmp_path, train={"images": [], "annotations": []}, test={}))


def test_the_folder_of_the_images_is_asked_for_if_two_fit(tmp_path: Path) -> None:
    tree(tmp_path / "cars_train", *IMAGES)
    tree(tmp_path / "cars_test", *IMAGES)
    write(tmp_path, train={"0.png": 0, "1.png": 1}, test={"2.png": 1})
    with pytest.raises(InputError, match=r"exist in cars_test and cars_train; name one .* images = "):
        read(tmp_path)
    assert read(tmp_path, images="cars_train").signatures == {
        f"{number}.png": tmp_path / "cars_train" / f"{number}.png" for number in range(3)
    }


def test_the_images_lie_below_another_folder(tmp_path: Path) -> None:
    tree(tmp_path / "pictures", *IMAGES)
    write(tmp_path / "lists", train={"0.png": 0, "1.png": 1}, test={"2.png": 1})
    files = {f"{number}.png": tmp_path / "pictures" / f"{number}.png" for number in range(3)}
    assert ImageFolder().list("lists:pictures", tmp_path, {}).signatures == files
    for images in ("pictures", "../pictures"):
        found = ImageFolder().list("lists", tmp_path, {"images": images}).signatures
        assert found is not None
        assert {name: file.resolve() for name, file in found.items()} == files
    with pytest.raises(InputError, match="both name the folder of the images; give one"):
        ImageFolder().list("lists:pictures", tmp_path, {"images": "pictures"})
    with pytest.raises(InputError, match=r"images: .*nowhere does not exist"):
        ImageFolder().list("lists:nowhere", tmp_path, {})
    with pytest.raises(InputError, match=r"3 images .* or name the folder .*, as in folder:.*/lists:FOLDER"):
        ImageFolder().list("lists", tmp_path, {})
    with pytest.raises(InputError, match=r"pictures holds no list file, so 'images' means nothing"):
        ImageFolder().list("pictures:lists", tmp_path, {})


def test_images_beside_the_lists_of_an_unpacked_archive_come_first(tmp_path: Path) -> None:
    inner = write(tmp_path / "bugs" / "bugs-v1", train={"0.png": 0, "1.png": 1}, test={"2.png": 1})
    for folder in (inner, tmp_path):
        tree(folder / "pictures", *IMAGES)
    files = ImageFolder().list("bugs", tmp_path, {"images": "pictures"}).signatures
    assert files == {f"{number}.png": inner / "pictures" / f"{number}.png" for number in range(3)}


def test_noah_lists_divide_at_the_last_space_or_tab_and_shots_are_chosen(tmp_path: Path) -> None:
    tree(tmp_path / "images", "a b.png", *IMAGES)
    for name, text in {
        "train_meta.list.num_shot_1.seed_0": "a b.png 0\n1.png 1\n",
        "train_meta.list.num_shot_2.seed_0": "a b.png 0\n1.png 1\n2.png 1\n",
        "test_meta.list": "3.png\t0\r\n",
    }.items():
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / name).write_text(text)
    with pytest.raises(InputError, match=r'several train splits .* splits = \{ train = "train_meta\.list\.num_shot_1'):
        read(tmp_path)
    listing = read(tmp_path, splits={"train": "train_meta.list.num_shot_1.seed_0"})
    assert labels(listing) == {"train": [("a b.png", "0"), ("1.png", "1")], "test": [("3.png", "0")]}


def test_missing_images_are_counted_and_the_first_three_named(tmp_path: Path) -> None:
    tree(tmp_path, "0.png", "1.png")
    with pytest.raises(InputError, match=r"4 images that .* lists do not exist .*: 2\.png, 3\.png, 4\.png and 1 more"):
        read(write(tmp_path, train={path: number % 2 for number, path in enumerate(IMAGES)}))


def test_a_task_of_vtab_is_read_by_its_split_files(tmp_path: Path) -> None:
    listing = read(vtab_tree(tmp_path, tasks=["patch_camelyon"]) / "patch_camelyon")
    assert (listing.classes, sizes(listing)) == (("0", "1"), {"train": 8, "val": 2, "test": 6})


def test_absolute_paths_do_not_become_part_of_the_listing(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "ant/0.png", "bee/1.png", "bee/2.png")
    paths = [str(tmp_path / "elsewhere" / name) for name in ("ant/0.png", "bee/1.png", "bee/2.png")]
    listing = read(write(tmp_path / "lists", train={paths[0]: 0, paths[1]: 1}, test={paths[2]: 1}))
    assert labels(listing) == {"train": [("ant/0.png", "ant"), ("bee/1.png", "bee")], "test": [("bee/2.png", "bee")]}
    assert listing.signatures is not None
    assert listing.signatures["ant/0.png"] == Path(paths[0])
    with pytest.raises(InputError, match=r"lists absolute and relative paths, such as /"):
        read(write(tmp_path / "lists", train={paths[0]: 0, "1.png": 1}))


def test_a_name_in_place_of_a_number_is_named(tmp_path: Path) -> None:
    tree(tmp_path / "images", *IMAGES)
    (tmp_path / "annotations").mkdir()
    for name in ("train_meta.list", "test_meta.list"):
        (tmp_path / "annotations" / name).write_text("0.png 0\n1.png bee\n")
    with pytest.raises(InputError, match=r"line 2: expected a path, a space and a whole number, found '1\.png bee'"):
        read(tmp_path)
