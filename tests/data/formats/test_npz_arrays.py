"""``npz:PATH``: arrays of images and labels in real files, as MedMNIST publishes them."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shipbench.data.formats import array_file
from shipbench.data.formats.image_folder import ImageFolder
from shipbench.data.formats.npz_arrays import NpzArrays
from shipbench.data.listings import Listing
from shipbench.data.types import Identity
from shipbench.errors import InputError
from shipbench.tasks.own import task_of_source
from tests.data.formats.trees import labels, sizes

SIZES = {"train": 8, "val": 4, "test": 4}


def arrays(size: Sequence[int] = (6, 5), seed: int = 0, **counts: int) -> dict[str, np.ndarray]:
    """Return noise and the labels 0, 1, 0, ... of each split, in MedMNIST's shapes."""
    rng = np.random.default_rng(seed)
    content = {}
    for split, count in (counts or SIZES).items():
        content[f"{split}_images"] = rng.integers(0, 256, (count, *size), dtype=np.uint8)
        content[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    return content


def write(file: Path, content: Mapping[str, Any] | None = None, save: Callable[..., None] = np.savez) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save(file, **(arrays() if content is None else content))
    return file


def read(file: Path, **options: Any) -> Listing:
    return NpzArrays().list(str(file), Path("/"), options)


def identity(file: Path) -> Identity:
    task = task_of_source(f"npz:{file}", Path("/"))
    return NpzArrays().open(task, None, ("train", "test")).identity()


@pytest.mark.parametrize(("size", "mode"), [((6, 5), "L"), ((6, 5, 3), "RGB"), ((6, 5, 1), "L")])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_splits_of_the_file_are_read(
    tmp_path: Path, size: tuple[int, ...], mode: str, save: Callable[..., None]
) -> None:
    content = arrays(size)
    listing = read(write(tmp_path / "bugs.npz", content, save))
    assert (listing.classes, sizes(listing), listing.notes) == (("0", "1"), SIZES, ())
    assert labels(listing)["val"][:2] == [("val/00000000", "0"), ("val/00000001", "1")]
    for split in SIZES:
        for number, entry in enumerate(listing.splits[split]):
            image = listing.images.read(entry.path)
            assert isinstance(image, Image.Image)
            assert (image.mode, image.size) == (mode, (5, 6))
            pixels = content[f"{split}_images"][number].reshape(np.asarray(image).shape)
            np.testing.assert_array_equal(np.asarray(image), pixels)
            assert listing.picture(entry.path).mode == "RGB"


def test_the_fingerprint_follows_from_pixels_and_labels_alone(tmp_path: Path, private_cache: Path) -> None:
    content = arrays()
    first = identity(write(tmp_path / "bugs.npz", content))
    assert first.image_format == "array"
    moved = write(tmp_path / "elsewhere" / "x.npz", dict(reversed(content.items())), np.savez_compressed)
    assert identity(moved) == first
    for name in ("train_images", "test_labels"):
        changed = {key: value.copy() for key, value in content.items()}
        changed[name].flat[-1] ^= 1
        assert identity(write(tmp_path / f"{name}.npz", changed)).fingerprint != first.fingerprint


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_are_unpacked_in_any_order_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[..., None]
) -> None:
    monkeypatch.setattr(array_file, "_BLOCK_BYTES", 100)
    monkeypatch.setattr(array_file, "_KEPT_BYTES", 250)
    monkeypatch.setattr(array_file, "_PACKED_BYTES", 37)
    content = np.repeat(np.arange(50, dtype=np.uint8), 30).reshape(50, 6, 5)
    rows = array_file.ArrayFile(write(tmp_path / "a.npz", {"a": content}, save)).rows("a")
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 3)).tolist()
    with ThreadPoolExecutor(4) as threads:
        read_back = list(threads.map(rows.row, order))
    np.testing.assert_array_equal(read_back, content[order])
    assert sum(block.nbytes for block in rows._kept.values()) <= 250


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_refused(tmp_path: Path, private_cache: Path, save: Callable[..., None]) -> None:
    file = write(tmp_path / "bugs.npz", arrays((30, 30)), save)
    data = bytearray(file.read_bytes())
    data[2000] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"bugs\.npz: the array train_images cannot be read: .*; get the file again"):
        identity(file)


def test_images_without_a_label_are_left_out_and_labels_may_be_texts_or_whole_numbers(tmp_path: Path) -> None:
    content = arrays()
    content["train_labels"] = np.array([0, 1, -1, 1, 0, 1, -1, 1])
    listing = read(write(tmp_path / "a.npz", content))
    assert sizes(listing) == {"train": 6, "val": 4, "test": 4}
    assert listing.notes == (f"left out 2 images of train in {tmp_path / 'a.npz'} without a label",)
    for split, count in SIZES.items():
        content[f"{split}_labels"] = np.array(["wasp", "bee"] * (count // 2))
    assert read(write(tmp_path / "b.npz", content)).classes == ("bee", "wasp")
    for split, count in SIZES.items():
        content[f"{split}_labels"] = np.array(["wasp", ""] + ["bee"] * (count - 2))
    assert sizes(read(write(tmp_path / "blank.npz", content))) == {"train": 7, "val": 3, "test": 3}
    for split, count in SIZES.items():
        content[f"{split}_labels"] = np.array([1.0, 2.0] * (count // 2))
    assert read(write(tmp_path / "c.npz", content)).classes == ("1", "2")


def test_splits_are_those_of_the_arrays_unless_the_task_file_says_otherwise(tmp_path: Path) -> None:
    assert sizes(read(write(tmp_path / "a.npz", arrays(train=10)))) == {"train": 10}
    named = write(tmp_path / "b.npz", arrays(day=8, night=4, dusk=2))
    with pytest.raises(InputError, match=r"has no train split \(its splits: day, night, dusk\)"):
        read(named)
    listing = read(named, splits={"train": "day", "test": "night"})
    assert (sizes(listing), listing.notes) == ({"train": 8, "test": 4}, (f"left out 1 split of {named}: dusk",))
    content = arrays()
    del content["test_labels"], content["val_labels"], content["val_images"]
    listing = read(write(tmp_path / "c.npz", content))
    assert listing.notes == (f"test in {tmp_path / 'c.npz'} has no labels and is left out",)
    with pytest.raises(InputError, match=r"a val split \(val\) but no test split"):
        read(write(tmp_path / "d.npz", arrays(train=4, val=2)))


IMAGES = np.zeros((4, 6, 5), np.uint8)
LABELS = np.array([[0], [1], [0], [1]])


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (np.zeros((4, 6, 6, 6), np.uint8), LABELS, r"train_images has the shape 4 x 6 x 6 x 6; .* and no volumes"),
        (np.zeros((4, 3, 6, 5), np.uint8), LABELS, r"train_images has the shape 4 x 3 x 6 x 5; shipbench reads n x he"),
        (np.zeros((4, 30), np.uint8), LABELS, r"train_images has the shape 4 x 30"),
        (np.uint8(7), LABELS, r"train_images has the shape of a single number"),
        (IMAGES.astype(np.float32), LABELS, r"pixels of the type float32; save them as uint8 from 0 to 255"),
        (np.asfortranarray(IMAGES), LABELS, r"train_images holds pixels in Fortran order; save them .* in C order"),
        (IMAGES, np.zeros((4, 14), np.uint8), r"train_labels has 14 numbers per image, so several labels; .*"),
        (IMAGES, LABELS[:3], r"has 4 images of train but 3 labels; save one label per image"),
        (IMAGES, np.int64(3), r"has 4 images of train but 1 label"),
        (IMAGES, np.array([0, 1, 0.5, 1]), r"train_labels holds '0\.5'; save one integer or text per image"),
        (IMAGES, np.array([0, 1, np.nan, 1]), r"train_labels holds 'nan'"),
        (IMAGES, np.array([0, 1, 0, 1j]), r"train_labels holds '0j'; save one"),
        (IMAGES, np.zeros(4, np.uint8), r"has the single class '0'"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path: Path, images: Any, targets: Any, message: str) -> None:
    content = {**arrays(), "train_images": images, "train_labels": targets}
    if message.startswith("has the single"):
        content = {name: content[name] for name in ("train_images", "train_labels")}
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "a.npz", content))


class Bomb:
    """An object whose pickle writes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["train_images", "train_labels"])
def test_nothing_is_unpickled(tmp_path: Path, name: str) -> None:
    content = {**arrays(), name: np.array([Bomb(tmp_path / "exploded")] * 8)}
    with pytest.raises(InputError, match=rf"a\.npz: {name} holds Python objects, which are never unpickled"):
        read(write(tmp_path / "a.npz", content))
    assert not (tmp_path / "exploded").exists()


def test_other_files_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "bugs.npz", {"a": IMAGES, "b": LABELS})
    with pytest.raises(InputError, match=r"no arrays train_images and train_labels \(its arrays: a, b\); save them"):
        read(file)
    with pytest.raises(InputError, match=r"is a folder; name the file, as in npz:.*/bugs\.npz"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"is a file of arrays, not a folder; name it npz:.*/bugs\.npz"):
        ImageFolder().list(str(file), Path("/"), {})
    with pytest.raises(InputError, match=r"none\.npz does not exist; name the file that holds the arrays"):
        read(tmp_path / "none.npz")
    whole = file.read_bytes()
    for data, words in (
        (whole[:-30], r"is truncated or damaged; get the file again"),
        (b"\x93NUMPY\x01\x00", r"is a NumPy array; save the arrays with numpy\.savez"),
        (b"", r"is empty; get the file again"),
        (b"hello", r"is not an npz file; save the arrays with numpy\.savez"),
    ):
        file.write_bytes(data)
        with pytest.raises(InputError, match=rf"bugs\.npz {words}"):
            read(file)
    with pytest.raises(InputError, match=r"npz sources read no key 'label_column' of the task file"):
        read(file, label_column="x")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_unpacked_rows_lie_in_pages_of_their_own(tmp_path: Path, save: Callable[..., None]) -> None:
    # Blocks on the heap of several threads would fill the memory with holes: 1.3 GB for a file of 3 GB.
    row: Any = array_file.ArrayFile(write(tmp_path / "bugs.npz", save=save)).rows("train_images").row(3)
    assert not row.flags.writeable
    while isinstance(row, np.ndarray):
        row = row.base
    assert isinstance(row.obj if isinstance(row, memoryview) else row, mmap.mmap)


@pytest.mark.parametrize(("images", "targets"), [("x_{}", "y_{}"), ("X_{}", "y_{}")])
def test_the_names_of_keras_are_read(tmp_path: Path, images: str, targets: str) -> None:
    content = arrays(train=4, test=2)
    renamed = {
        new.format(split): content[f"{split}_{old}"]
        for split in ("train", "test")
        for new, old in ((images, "images"), (targets, "labels"))
    }
    listing = read(write(tmp_path / "bugs.npz", renamed))
    assert sizes(listing) == {"train": 4, "test": 2}
    expected = read(write(tmp_path / "other.npz", content))
    assert np.array_equal(*(np.asarray(part.images.read("test/00000001")) for part in (listing, expected)))
    del renamed[targets.format("test")]
    assert read(write(tmp_path / "bugs.npz", renamed)).notes == (
        f"test in {tmp_path / 'bugs.npz'} has no labels and is left out",
    )


@pytest.mark.parametrize(("images", "targets"), [("images", "labels"), ("X", "y"), ("x", "y")])
def test_a_file_without_splits_is_a_training_set(tmp_path: Path, images: str, targets: str) -> None:
    content = arrays(train=4)
    file = write(tmp_path / "bugs.npz", {images: content["train_images"], targets: content["train_labels"]})
    assert sizes(read(file)) == {"train": 4}
