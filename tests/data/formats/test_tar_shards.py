"""``hf:PATH``: shards of WebDataset."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from shipbench.errors import InputError
from tests.data.formats.hub_tables import read
from tests.data.formats.trees import labels, picture, sizes, tree


def shard(file: Path, members: Mapping[str, bytes]) -> Path:
    """Write a tar archive of members with their contents."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def samples(**labels: str) -> dict[str, bytes]:
    """Return the members of images with captions, and with labels unless these are empty."""
    return {
        f"./{key}.{suffix}": content
        for key, label in labels.items()
        for suffix, content in {"png": picture(key), "txt": b"a caption", "cls": label.encode()}.items()
        if content
    }


@pytest.mark.parametrize("names", [("train-000000", "train-000001", "test-000000"), ("train/0", "train/1", "test/0")])
def test_shards_are_read_by_split(tmp_path: Path, names: tuple[str, str, str]) -> None:
    one, two, three = names
    for name, members in zip(names, ({"a": "0", "b": "10"}, {"a": "9"}, {"c": "10"}), strict=True):
        shard(tmp_path / f"{name}.tar", samples(**members))
    listing = read(tmp_path)
    assert listing.classes == ("0", "9", "10")
    assert labels(listing) == {
        "train": [(f"{one}.tar/a.png", "0"), (f"{one}.tar/b.png", "10"), (f"{two}.tar/a.png", "9")],
        "test": [(f"{three}.tar/c.png", "10")],
    }
    for role, path, key in (("train", 1, "b"), ("train", 2, "a"), ("test", 0, "c")):
        assert listing.images.read(listing.splits[role][path].path) == picture(key)
    assert listing.signatures[listing.splits["test"][0].path] == tmp_path / f"{three}.tar"


def test_names_of_classes_lie_beside_the_shards(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", samples(a="0", b="2"))
    (tmp_path / "classnames.txt").write_text("ant\nbee\nwasp\n")
    assert read(tmp_path).classes == ("ant", "wasp")
    shard(tmp_path / "train.tar", {**samples(a="0", b="2", c=""), "./c.cls": b"", "./d.cls": b"no image"})
    assert read(tmp_path).classes == ("ant", "wasp")
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    assert read(tmp_path).classes == ("0", "2")


def test_a_single_shard_is_a_training_set_and_unlabelled_images_are_left_out(tmp_path: Path) -> None:
    listing = read(shard(tmp_path / "bugs.tar", samples(a="ant", b="bee", c="")))
    assert (listing.classes, sizes(listing)) == (("ant", "bee"), {"train": 2})
    assert listing.notes == (f"left out 1 image of train in {tmp_path / 'bugs.tar'} without a label",)


def test_splits_are_chosen_and_validation_images_are_decided_on(tmp_path: Path) -> None:
    for split in ("train", "val"):
        shard(tmp_path / f"{split}.tar", samples(a="0", b="1"))
    with pytest.raises(InputError, match=r"a val split \(val\) but no test split"):
        read(tmp_path)
    assert sizes(read(tmp_path, splits={"test": "val"})) == {"train": 2, "test": 2}


def test_other_archives_are_to_be_unpacked_and_damaged_ones_named(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", samples(a="", b=""))
    with pytest.raises(InputError, match=r"no class folders but archives \(train\.tar\); unpack them"):
        read(tmp_path)
    (tmp_path / "train.tar").write_bytes(b"damaged" * 100)
    with pytest.raises(InputError, match=r"train\.tar cannot be read as a tar archive: .*; get it again"):
        read(tmp_path)


def test_a_damaged_or_packed_archive_beside_class_folders_is_no_shard(tmp_path: Path) -> None:
    tree(tmp_path, "train/ant/1.png", "train/bee/1.png")
    (tmp_path / "train.tar").write_bytes(b"damaged" * 100)
    with tarfile.open(tmp_path / "more.tar", "w:gz") as archive:
        archive.add(tmp_path / "train", "train")
    assert sizes(read(tmp_path)) == {"train": 2}


def test_one_of_several_images_of_a_sample_is_chosen(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", {"1.jpg": b"a", "1.mask.png": b"b", "1.cls": b"0", "2.jpg": b"c", "2.cls": b"1"})
    message = r'several images for one label \(jpg, mask\.png\); .*: image_column = "jpg"'
    with pytest.raises(InputError, match=message):
        read(tmp_path)
    assert labels(read(tmp_path, image_column="jpg")) == {"train": [("train.tar/1.jpg", "0"), ("train.tar/2.jpg", "1")]}
    with pytest.raises(InputError, match=r"has no images 'png' \(image_column\); it has jpg, mask\.png"):
        read(tmp_path, image_column="png")


def test_another_member_than_cls_may_hold_the_label(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", {"1.png": b"a", "1.txt": b"ant", "2.png": b"b", "2.txt": b"bee"})
    assert read(tmp_path, label_column="txt").classes == ("ant", "bee")


@pytest.mark.parametrize("label", [b"0" * 1001, b"\xff"])
def test_a_label_is_a_short_text(tmp_path: Path, label: bytes) -> None:
    shard(tmp_path / "train.tar", {"1.png": b"a", "1.cls": label})
    with pytest.raises(InputError, match=rf"1\.cls holds no class but {len(label):,} bytes?; correct it"):
        read(tmp_path)


def test_a_split_of_unlabelled_images_is_left_out_before_splits_get_roles(tmp_path: Path) -> None:
    for split in ("train", "val"):
        shard(tmp_path / f"{split}.tar", samples(a="0", b="1"))
    shard(tmp_path / "test.tar", samples(c=""))
    with pytest.raises(InputError, match=r"a val split \(val\) but no test split"):
        read(tmp_path)
    (tmp_path / "val.tar").unlink()
    assert read(tmp_path).notes == (f"test in {tmp_path} has no labels and is left out",)


def test_the_named_folder_is_no_split(tmp_path: Path) -> None:
    shard(tmp_path / "test" / "0.tar", samples(a="0", b="1"))
    assert sizes(read(tmp_path / "test")) == {"train": 2}
    shard(tmp_path / "train" / "part" / "0.tar", samples(a="0", b="1"))
    assert sizes(read(tmp_path)) == {"train": 2, "test": 2}
