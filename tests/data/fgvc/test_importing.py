"""``data import`` of the FGVC archives: every file finds its place, and nothing is left after a failure."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shipbench.data.acquisition.fgvc import destination, holds_fgvc, import_fgvc
from shipbench.data.fgvc.source import FgvcSuite
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.conftest import Outcome
from tests.data.builders import vtab_tree
from tests.data.fgvc.builders import birds, cars, dogs, flowers
from tests.data.formats.trees import sizes


def tarred(file: Path, folder: Path, *names: str, prefix: str = "") -> Path:
    with tarfile.open(file, "w:gz" if file.suffix == ".tgz" else "w") as archive:
        for name in names:
            archive.add(folder / name, prefix + name)
    return file


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("CUB_200_2011/images/001.A/a.jpg", ("cub-200-2011", "images/001.A/a.jpg")),
        ("data/fgvc/cub/CUB_200_2011/images.txt", ("cub-200-2011", "images.txt")),
        ("nabirds/images/0817/ab.jpg", ("nabirds", "images/0817/ab.jpg")),
        ("jpg/image_00001.jpg", ("oxford-flowers", "jpg/image_00001.jpg")),
        ("setid.mat", ("oxford-flowers", "setid.mat")),
        ("Images/n02085620-Chihuahua/n02085620_1.jpg", ("stanford-dogs", "Images/n02085620-Chihuahua/n02085620_1.jpg")),
        ("devkit/cars_train_annos.mat", ("stanford-cars", "cars_train_annos.mat")),
        ("car_ims/000001.jpg", ("stanford-cars", "car_ims/000001.jpg")),
        ("FGVC/StanfordDogs/train.json", ("stanford-dogs", "train.json")),
        ("CUB_200_2011/._images.txt", None),
        ("dtd/images/a.jpg", None),
        ("images/a.jpg", None),
    ],
)
def test_a_file_finds_its_place_by_its_name(path: str, place: tuple[str, str] | None) -> None:
    expected = None if place is None else (place[0], tuple(place[1].split("/")))
    assert destination(tuple(path.split("/"))) == expected


def test_official_archives_become_readable_data_sets(tmp_path: Path, shipbench: Callable[..., Outcome]) -> None:
    birds(tmp_path / "CUB_200_2011")
    flowers(tmp_path / "flowers")
    dogs(tmp_path / "dogs")
    cars(tmp_path / "cars")
    sources = [
        tarred(tmp_path / "CUB_200_2011.tgz", tmp_path, "CUB_200_2011"),
        tarred(tmp_path / "102flowers.tgz", tmp_path / "flowers", "jpg"),
        tmp_path / "flowers" / "imagelabels.mat",
        tmp_path / "flowers" / "setid.mat",
        tarred(tmp_path / "images.tar", tmp_path / "dogs", "Images"),
        tarred(tmp_path / "lists.tar", tmp_path / "dogs", "train_list.mat", "test_list.mat"),
        tarred(tmp_path / "car_ims.tgz", tmp_path / "cars", "car_ims"),
        tmp_path / "cars" / "cars_annos.mat",
    ]
    target = tmp_path / "library"
    outcome = shipbench("data", "import", *sources, "--to", target)
    names = ["cub-200-2011", "oxford-flowers", "stanford-dogs", "stanford-cars"]
    assert (outcome.code, outcome.out.splitlines()[0]) == (
        0,
        f"imported 4 data sets into {target}: {', '.join(names)}",
    )
    assert "note: cub-200-2011: this copy has 18 train images instead of 5394" in outcome.err
    assert f"--tasks {','.join(names)} --data {target}" in outcome.err + outcome.out
    for name in names:
        assert sum(sizes(FgvcSuite().listing(get_task(name), target)).values()) == 24
    again = shipbench("data", "import", *sources, "--to", target)
    assert again.code == 2
    assert "already exists" in again.err


@pytest.mark.parametrize(("options", "folder"), [((), "data/fgvc"), (("--to", "data/vtab-1k"), "data/vtab-1k")])
def test_images_go_where_the_command_says(
    tmp_path: Path,
    shipbench: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    folder: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = shipbench("data", "import", dogs(tmp_path / "StanfordDogs"), *options)
    assert outcome.out.splitlines()[0] == f"imported 1 data set into {folder}: stanford-dogs", outcome.err
    assert [path.name for path in (tmp_path / "data").iterdir()] == [Path(folder).name]


def test_json_files_come_in_an_archive_or_folder_of_their_own(tmp_path: Path) -> None:
    images = birds(tmp_path / "raw" / "nabirds") / "images"
    paths = sorted(file.relative_to(images).as_posix() for file in images.rglob("*.jpg"))
    with zipfile.ZipFile(tmp_path / "json.zip", "w") as archive:
        for number, role in enumerate(("train", "val", "test")):
            listed = {path: int(path[:3]) for path in paths[number::3]}
            archive.writestr(f"json/nabirds/{role}.json", json.dumps(listed))
    for file in (tmp_path / "raw" / "nabirds").glob("*.txt"):
        file.unlink()
    assert import_fgvc([tmp_path / "json.zip", tmp_path / "raw"], tmp_path / "library") == ["nabirds"]
    assert sizes(FgvcSuite().listing(get_task("nabirds"), tmp_path / "library")) == {"train": 8, "val": 8, "test": 8}
    assert images.is_dir()


def test_the_import_says_what_is_wrong_with_a_damaged_archive(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(400_000)
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(noise)
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as archive:
        for name in ("a.bin", "b.bin"):
            archive.add(tmp_path / name, name)
    data = bytearray((tmp_path / "a.tar.xz").read_bytes())
    data[200_000] ^= 0xFF
    (tmp_path / "a.tar.xz").write_bytes(data)
    assert not holds_fgvc(tmp_path / "a.tar.xz")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "Images" / "n02085620-Chihuahua"), r"12 images of 24 are missing"),
        (lambda folder: (folder / "test_list.mat").unlink(), r"stanford-dogs has no labels of stanford-dogs; it needs"),
    ],
)
def test_an_incomplete_data_set_leaves_nothing(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(dogs(tmp_path / "StanfordDogs"))
    with pytest.raises(InputError, match=rf"{message}.*; name all parts in one command; nothing was imported"):
        import_fgvc([tmp_path / "StanfordDogs"], tmp_path / "library")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["StanfordDogs"]


def test_vtab_is_not_taken_for_fgvc(tmp_path: Path) -> None:
    assert not holds_fgvc(vtab_tree(tmp_path / "vtab", tasks=["dtd", "oxford_flowers102"]))
    assert not holds_fgvc(tmp_path / "missing.zip")
    assert holds_fgvc(birds(tmp_path / "CUB_200_2011"))
