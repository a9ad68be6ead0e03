"""``hf:PATH``: shards of WebDataset."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from shipbench.data.formats.hub_dataset import HubDataset
from shipbench.data.listings import Listing
from shipbench.errors import InputError
from tests.data.formats.trees import labels, picture, sizes


def read(path: Path, **options: Any) -> Listing:
    return HubDataset().list(str(path), Path("/"), options)


def shard(file: Path, **members: str) -> Path:
    """Write a shard of images with labels; an empty one is left out, and every image has a caption."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for key, label in members.items():
            parts = {"png": picture(key), "txt": b"a caption", "cls": label.encode()}
            for suffix, content in parts.items():
                if content:
                    member = tarfile.TarInfo(f"./{key}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return file


@pytest.mark.parametrize("names", [("train-000000", "train-000001", "test-000000"), ("train/0", "train/1", "test/0")])
def test_shards_are_read_by_split(tmp_path: Path, names: tuple[str, str, str]) -> None:
    one, two, three = names
    for name, members in zip(names, ({"a": "0", "b": "10"}, {"a": "9"}, {"c": "10"}), strict=True):
        shard(tmp_path / f"{name}.tar", **members)
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
    shard(tmp_path / "train.tar", a="0", b="2")
    (tmp_path / "classnames.txt").write_text("ant\nbee\nwasp\n")
    assert read(tmp_path).classes == ("ant", "wasp")
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    assert read(tmp_path).classes == ("0", "2")


def test_a_single_shard_is_a_training_set_and_unlabelled_images_are_left_out(tmp_path: Path) -> None:
    listing = read(shard(tmp_path / "bugs.tar", a="ant", b="bee", c=""))
    assert (listing.classes, sizes(listing)) == (("ant", "bee"), {"train": 2})
    assert listing.notes == (f"left out 1 image of train in {tmp_path / 'bugs.tar'} without a label",)


def test_splits_are_chosen_and_validation_images_are_decided_on(tmp_path: Path) -> None:
    for split in ("train", "val"):
        shard(tmp_path / f"{split}.tar", a="0", b="1")
    with pytest.raises(InputError, match=r"a val split \(val\) but no test split"):
        read(tmp_path)
    assert sizes(read(tmp_path, splits={"test": "val"})) == {"train": 2, "test": 2}


def test_other_archives_are_to_be_unpacked_and_damaged_ones_named(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", a="", b="")
    with pytest.raises(InputError, match=r"no class folders but archives \(train\.tar\); unpack them"):
        read(tmp_path)
    (tmp_path / "train.tar").write_bytes(b"damaged" * 100)
    with pytest.raises(InputError, match=r"train\.tar cannot be read as a tar archive: .*; get it again"):
        read(tmp_path)
