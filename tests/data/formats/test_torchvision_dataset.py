"""``torchvision:CLASS``: classes of torchvision over real files in their formats."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from shipbench.data import find, identities
from shipbench.data.formats.torchvision_dataset import TorchvisionDataset
from shipbench.data.formats.torchvision_files import containers_of
from shipbench.data.listings import Listing
from shipbench.errors import InputError
from shipbench.tasks.catalogue import SplitName
from shipbench.tasks.own import task_of_source
from tests.data.formats.trees import labels, sizes, tree

TUNING: tuple[SplitName, ...] = ("train800", "val200")
FINAL: tuple[SplitName, ...] = ("train", "test")


def read(name: str, base: Path, **options: Any) -> Listing:
    return TorchvisionDataset().list(name, base, options)


def mnist(folder: Path, prefix: str, values: Sequence[int], first: int = 0) -> None:
    """Write images and labels in MNIST's format; ``first`` is the first pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(first, first + len(values) * 16, dtype=np.uint8).tobytes()
    header = struct.pack(">IIII", 2051, len(values), 4, 4)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + pixels)
    content = struct.pack(">II", 2049, len(values)) + bytes(values)
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(content)


def test_a_class_with_a_train_switch(tmp_path: Path) -> None:
    mnist(tmp_path / "MNIST" / "raw", "train", [0, 1, 2, 1])
    mnist(tmp_path / "MNIST" / "raw", "t10k", [1, 0])
    listing = read("MNIST", tmp_path)
    assert listing.classes == ("0 - zero", "1 - one", "2 - two")
    assert sizes(listing) == {"train": 4, "test": 2}
    image = listing.images.read(listing.splits["train"][1].path)
    assert isinstance(image, Image.Image)
    assert (image.size, image.getpixel((0, 0))) == ((4, 4), 16)


def test_the_split_of_emnist_is_a_variant(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"EMNIST needs the argument 'split' \(byclass, .*arguments = \{ split = "):
        read("EMNIST", tmp_path)
    for split in ("train", "test"):
        mnist(tmp_path / "EMNIST" / "raw", f"emnist-letters-{split}", [1, 2, 1])
    listing = read("EMNIST", tmp_path, arguments={"split": "letters"})
    assert (listing.classes, sizes(listing)) == (("a", "b"), {"train": 3, "test": 3})


def test_a_class_with_splits_of_train_val_and_test(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "dtd" / "dtd" / "images", *(f"{kind}/{kind}_{n}.jpg" for kind in ("knit", "lace") for n in "123")
    )
    (root.parent / "labels").mkdir()
    for number, split in enumerate(("train", "val", "test"), start=1):
        lines = "".join(f"{kind}/{kind}_{number}.jpg\n" for kind in ("knit", "lace"))
        (root.parent / "labels" / f"{split}1.txt").write_text(lines)
    listing = read("DTD", tmp_path)
    assert (listing.classes, sizes(listing)) == (("knit", "lace"), {"train": 2, "val": 2, "test": 2})
    with pytest.raises(InputError, match=r"torchvision:DTD cannot be opened: "):
        read("DTD", tmp_path, arguments={"partition": "x"})


def test_a_split_under_another_name(tmp_path: Path) -> None:
    tree(
        tmp_path / "country211",
        *(f"{split}/{kind}/1.jpg" for split in ("train", "valid", "test") for kind in ("AD", "ZW")),
    )
    assert sizes(read("Country211", tmp_path)) == {"train": 2, "val": 2, "test": 2}
    assert sizes(read("Country211", tmp_path.parent, root=tmp_path.name)) == {"train": 2, "val": 2, "test": 2}


def test_counts_are_renumbered_and_a_split_without_labels_is_left_out(tmp_path: Path) -> None:
    root = tmp_path / "clevr" / "CLEVR_v1.0"
    for split in ("train", "val", "test"):
        tree(root / "images" / split, "0.png", "1.png")
    (root / "scenes").mkdir()
    for split in ("train", "val"):
        scenes = [{"image_filename": f"{n}.png", "objects": [{}] * (3 + n)} for n in range(2)]
        (root / "scenes" / f"CLEVR_{split}_scenes.json").write_text(json.dumps({"scenes": scenes}))
    options = {"splits": {"test": "val"}}
    listing = read("CLEVRClassification", tmp_path, **options)
    assert (listing.classes, sizes(listing)) == (("3", "4"), {"train": 2, "test": 2})
    assert "from 3 to 4, are numbered 0 to 1" in listing.notes[-1]
    whole = read("CLEVRClassification", tmp_path)
    assert (sizes(whole), whole.notes[0]) == (
        {"train": 2, "val": 2},
        "the test split of torchvision:CLEVRClassification has no labels and is left out",
    )


def test_a_class_without_splits_is_a_training_set(tmp_path: Path) -> None:
    tree(tmp_path / "eurosat" / "2750", "Forest/1.jpg", "River/1.jpg")
    listing = read("EuroSAT", tmp_path)
    assert labels(listing) == {"train": [("all/00000000", "Forest"), ("all/00000001", "River")]}


def test_labels_are_read_from_pairs_if_the_class_has_no_attribute(tmp_path: Path) -> None:
    listing = read("FakeData", tmp_path, arguments={"size": 12, "image_size": [3, 8, 8], "num_classes": 2})
    assert (listing.classes, sizes(listing)) == (("0", "1"), {"train": 12})


def test_the_files_lie_in_the_folder_of_data_unless_the_task_file_names_a_root(tmp_path: Path) -> None:
    tree(tmp_path / "store" / "eurosat" / "2750", "Forest/1.jpg", "River/1.jpg")
    task = task_of_source("torchvision:EuroSAT", tmp_path)
    assert task.name == "tv-eurosat"
    assert sizes(TorchvisionDataset().listing(task, tmp_path / "store")) == {"train": 2}
    rooted = replace(task, options=json.dumps({"root": "store"}))
    for root in (None, tmp_path / "elsewhere"):
        assert sizes(TorchvisionDataset().listing(rooted, root)) == {"train": 2}
    with pytest.raises(InputError, match="EuroSAT cannot be read from"):
        TorchvisionDataset().listing(task, None)


def uncompressed(folder: Path, *paths: str) -> Path:
    """Write images whose last bytes are pixels, under any suffix; return the last one."""
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), (number, 0, 0)).save(folder / path, "PPM")
    return folder / paths[-1]


def eurosat(root: Path) -> Path:
    return uncompressed(root / "eurosat" / "2750", *(f"{kind}/{n}.ppm" for kind in ("Forest", "River") for n in "012"))


def gtsrb(root: Path) -> Path:
    kinds = ("00000", "00001")
    last = uncompressed(
        root / "gtsrb" / "GTSRB",
        *(f"Training/{kind}/{number}.ppm" for kind in kinds for number in "01"),
        *(f"Final_Test/Images/{kind}.ppm" for kind in kinds),
    )
    rows = "".join(f"{kind}.ppm;{int(kind)}\n" for kind in kinds)
    (root / "gtsrb" / "GT-final_test.csv").write_text(f"Filename;ClassId\n{rows}")
    return last


def caltech(root: Path) -> Path:
    images = root / "caltech101" / "101_ObjectCategories"
    (images / "BACKGROUND_Google").mkdir(parents=True)
    return uncompressed(images, *(f"{kind}/image_000{number}.jpg" for kind in ("ant", "bonsai") for number in "123"))


def inaturalist(root: Path) -> Path:
    kinds = (f"0000{number}_Animalia_b_c_d_e_f_g" for number in "01")
    return uncompressed(root / "2021_train", *(f"{kind}/{number}.jpg" for kind in kinds for number in "123"))


def digits(root: Path) -> Path:
    folder = root / "MNIST" / "raw"
    mnist(folder, "train", [0, 1, 0, 1])
    mnist(folder, "t10k", [1, 0], first=100)
    return folder / "t10k-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("name", "write", "decodings"),
    [
        ("EuroSAT", eurosat, 6),
        ("GTSRB", gtsrb, 6),
        ("Caltech101", caltech, 6),
        ("MNIST", digits, 6),
        # It gives labels with images only.
        ("INaturalist", inaturalist, 12),
    ],
)
def test_images_are_decoded_once_for_all_commands_until_a_file_changes(
    tmp_path: Path,
    private_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path], Path],
    decodings: int,
) -> None:
    monkeypatch.setattr(identities, "TICK_NS", -(10**12))
    file, task = write(tmp_path), task_of_source(f"torchvision:{name}", tmp_path)
    decoded = watch_decoding(monkeypatch, vars(datasets)[name])
    tuning = find(task, None, TUNING).identity
    assert 0 < len(decoded) < decodings
    final = find(task, None, FINAL).identity
    assert len(decoded) == decodings
    assert (find(task, None, TUNING).identity, find(task, None, FINAL).identity) == (tuning, final)
    assert len(decoded) == decodings
    content = bytearray(file.read_bytes())
    content[-3] ^= 8
    file.write_bytes(content)
    assert find(task, None, FINAL).identity.fingerprint != final.fingerprint
    assert len(decoded) == 2 * decodings


def test_an_order_of_its_own_is_part_of_what_a_class_reads(tmp_path: Path) -> None:
    """INaturalist lists its folders in the order of the file system, which may change."""
    tree(tmp_path, "images/a.png", "images/b.png")

    class Indexed:
        base_folder = "images"

        def __init__(self, *names: str) -> None:
            self.index = [(0, name) for name in names]

        def __len__(self) -> int:
            return len(self.index)

    one, again, other = (
        containers_of(Indexed(*names), tmp_path, {}) for names in (("a.png", "b.png"),) * 2 + (("b.png", "a.png"),)
    )
    assert one is not None
    assert other is not None
    assert (one, one.files) == (again, other.files)
    assert one.reader != other.reader


def test_images_of_other_arguments_are_not_those_remembered(
    tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "TICK_NS", -(10**12))
    task = task_of_source("torchvision:EMNIST", tmp_path)
    contents = []
    for first, variant in ((100, "letters"), (150, "mnist")):
        mnist(tmp_path / "EMNIST" / "raw", f"emnist-{variant}-train", [1, 2, 1, 2])
        mnist(tmp_path / "EMNIST" / "raw", f"emnist-{variant}-test", [1, 2], first=first)
    for variant in ("letters", "mnist", "letters"):
        options = json.dumps({"arguments": {"split": variant}})
        contents.append(find(replace(task, options=options), None, FINAL).identity.contents["test"])
    assert contents[0] != contents[1]
    assert contents[0] == contents[2]


def watch_decoding(monkeypatch: pytest.MonkeyPatch, kind: type[Any]) -> list[int]:
    """Return a list that grows with every image that a class of torchvision gives."""
    decoded: list[int] = []
    read_one = kind.__getitem__

    def read(dataset: Any, index: int) -> Any:
        decoded.append(index)
        return read_one(dataset, index)

    monkeypatch.setattr(kind, "__getitem__", read)
    return decoded


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CIFAR10", {}, r"CIFAR10 cannot be read from .* root = \.\.\., or allow the download with download = true"),
        ("SVHN", {}, r"SVHN cannot be read from"),
        ("cifar100", {}, r"no data set called 'cifar100' \(did you mean 'CIFAR100'\?\)"),
        ("Kitti", {}, r"holds boxes; shipbench trains with one label per image"),
        ("CelebA", {}, r"holds several attributes per image"),
        ("ImageFolder", {}, r"which the source folder: reads"),
        ("ImageNet", {}, r"a val split \(val\) but no test split"),
        (
            "MNIST",
            {"arguments": {"colour": 1}},
            r"arguments\.colour in the task file is not an argument of torchvision:MNIST",
        ),
        ("MNIST", {"download": "yes"}, r"download = 'yes' in the task file is not a switch"),
        ("MNIST", {"label": 1}, r"torchvision sources read no key 'label'"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(name, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []
