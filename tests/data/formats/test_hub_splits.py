"""The splits of ``hf:`` data sets: names and pieces of files, and columns that say the split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from shipbench.errors import InputError
from tests.data.formats.hub_tables import metadata, parquet, read, shard
from tests.data.formats.trees import labels, picture, sizes, tree


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


def test_a_single_file_is_a_training_set(tmp_path: Path) -> None:
    assert sizes(read(parquet(tmp_path / "bugs.parquet", label=["b", "a", "b"]))) == {"train": 3}


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


@pytest.mark.parametrize("folder", ["", "data/"])
def test_a_file_that_names_no_split_is_train_only_if_no_other_is(tmp_path: Path, folder: str) -> None:
    for name in ("all", "test"):
        parquet(tmp_path / f"{folder}{name}.parquet", label=[0, 1])
    assert sizes(read(tmp_path)) == {"train": 2, "test": 2}
    parquet(tmp_path / f"{folder}train.parquet", label=[0, 1, 1])
    listing = read(tmp_path)
    assert (sizes(listing), listing.notes) == (
        {"train": 3, "test": 2},
        (f"left out 1 split of {tmp_path}: all",),
    )
    assert sizes(read(tmp_path, splits={"train": ["train", "all"]})) == {"train": 5, "test": 2}


def test_splits_behind_links_are_read(tmp_path: Path) -> None:
    for split in ("train", "test"):
        parquet(tmp_path / "disk" / split / "0000.parquet", label=[0, 1])
        tree(tmp_path / "disk" / "folders" / split, "a.png", "b.png")
        metadata(tmp_path / "disk" / "folders" / split, "file_name,label\na.png,ant\nb.png,bee\n")
        for folder, target in (("tables", split), ("folders", f"folders/{split}")):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / split).symlink_to(tmp_path / "disk" / target)
    for folder in ("tables", "folders"):
        assert sizes(read(tmp_path / folder)) == {"train": 2, "test": 2}


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
    listing = read(tmp_path)
    assert sizes(listing) == {"val": 2, "test": 2}
    assert listing.untrainable == (
        f"the column 'split' of {tmp_path} has no train split (its splits: val, test); name it in the task file: "
        'splits = { train = "..." }'
    )
    assert sizes(read(tmp_path, splits={"train": "val"})) == {"train": 2, "test": 2}
    assert sizes(read(tmp_path, splits={"train": ["val", "test"]})) == {"train": 4}


@pytest.mark.parametrize(("column", "value"), [("split", "test"), ("partition", "Validation"), ("fold", "eval")])
def test_a_column_may_say_that_no_image_is_train(tmp_path: Path, column: str, value: str) -> None:
    parquet(tmp_path / "all.parquet", label=[0, 1], **{column: [value, value]})
    reason = f"the column '{column}' of {tmp_path} has no train split (its splits: {value})"
    assert read(tmp_path).untrainable.startswith(reason)
    assert sizes(read(tmp_path, splits={"train": [value]})) == {"train": 2}
    (tmp_path / "all.parquet").unlink()
    metadata(tmp_path, f"file_name,label,{column}\na.png,1,{value}\nb.png,2,{value}\n")
    tree(tmp_path, "a.png", "b.png")
    assert read(tmp_path).untrainable.startswith(reason)


def test_a_column_of_other_names_is_passed_over(tmp_path: Path) -> None:
    odd = ["train", "val", "unused", "test"]
    parquet(tmp_path / "all.parquet", label=[0, 1, 0, 1], fold=odd, original_split=odd)
    assert sizes(read(tmp_path)) == {"train": 4}


def test_the_column_of_the_label_is_not_that_of_the_split(tmp_path: Path) -> None:
    parquet(tmp_path / "all.parquet", subset=["train", "test", "extra"])
    assert sizes(read(tmp_path, label_column="subset")) == {"train": 3}
