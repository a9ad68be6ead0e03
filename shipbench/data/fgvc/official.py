"""The official label files of the FGVC data sets, for copies without VPT's JSON files.

CUB-200-2011 and NABirds have text files of an image id and a value per line, the others MATLAB files. None but Oxford
Flowers has a validation split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from shipbench.data.formats.files import lines_of, plain_path
from shipbench.data.formats.labels import Label, Rows
from shipbench.data.images import read_bytes
from shipbench.data.listings import SplitRole
from shipbench.errors import InputError

OfficialRows: TypeAlias = dict[SplitRole, Rows]
"""Paths relative to the data set's folder, and labels as the files number them, from 1."""

Reader: TypeAlias = Callable[[Path], tuple[OfficialRows, Mapping[Label, str] | None]]

BIRD_FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt")


def read_birds(folder: Path) -> tuple[OfficialRows, Mapping[Label, str] | None]:
    """Read the text files of CUB-200-2011 or NABirds; class names come from ``classes.txt``."""
    paths, labels, training = (_values(folder / name) for name in BIRD_FILES)
    if not paths.keys() == labels.keys() == training.keys():
        raise InputError(f"the files {', '.join(BIRD_FILES)} in {folder} list different images; get them again")
    train: list[tuple[str, Label]] = []
    test: list[tuple[str, Label]] = []
    for image, path in paths.items():
        (train if training[image] == "1" else test).append((f"images/{plain_path(path)}", int(labels[image])))
    names = _values(folder / "classes.txt") if (folder / "classes.txt").is_file() else {}
    used = {label for _, label in (*train, *test)}
    titles: dict[Label, str] = {int(label): name for label, name in names.items() if int(label) in used}
    # classes.txt of NABirds also lists the inner nodes of its hierarchy, which have no images.
    usable = used == titles.keys() and len(set(titles.values())) == len(titles)
    return {"train": train, "test": test}, titles if usable else None


def read_flowers(folder: Path) -> tuple[OfficialRows, None]:
    """Read ``imagelabels.mat`` and ``setid.mat`` of Oxford Flowers."""
    labels = _numbers(_mat(folder / "imagelabels.mat"), "labels", folder / "imagelabels.mat")
    sets = _mat(folder / "setid.mat")
    parts: tuple[tuple[SplitRole, str], ...] = (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
    rows: OfficialRows = {}
    for role, key in parts:
        numbers = _numbers(sets, key, folder / "setid.mat")
        rows[role] = [(f"jpg/image_{number:05d}.jpg", labels[number - 1]) for number in numbers]
    return rows, None


def read_dogs(folder: Path) -> tuple[OfficialRows, None]:
    """Read ``train_list.mat`` and ``test_list.mat`` of Stanford Dogs."""
    rows: OfficialRows = {}
    parts: tuple[tuple[SplitRole, str], ...] = (("train", "train_list.mat"), ("test", "test_list.mat"))
    for role, name in parts:
        content = _mat(folder / name)
        labels = _numbers(content, "labels", folder / name)
        paths = _field(content, "file_list", folder / name).ravel()
        rows[role] = [(f"Images/{_text(path)}", label) for path, label in zip(paths, labels, strict=True)]
    return rows, None


def read_cars(folder: Path) -> tuple[OfficialRows, Mapping[Label, str] | None]:
    """Read ``cars_annos.mat`` of Stanford Cars, whose images are in ``car_ims``.

    The files of the devkit number training and test images apart, in ``cars_train`` and ``cars_test``.
    """
    if (folder / "cars_annos.mat").is_file():
        file = folder / "cars_annos.mat"
        content = _mat(file)
        splits: tuple[list[tuple[str, Label]], list[tuple[str, Label]]] = ([], [])
        for item in _field(content, "annotations", file).ravel():
            path, label = plain_path(_text(item["relative_im_path"])), int(_first(item["class"]))
            splits[int(_first(item["test"]))].append((path, label))
        return {"train": splits[0], "test": splits[1]}, _car_names(content)
    parts: tuple[tuple[SplitRole, str, str], ...] = (
        ("train", "cars_train", "cars_train_annos.mat"),
        ("test", "cars_test", "cars_test_annos_withlabels.mat"),
    )
    rows: OfficialRows = {}
    for role, images, name in parts:
        items = _field(_mat(folder / name), "annotations", folder / name).ravel()
        rows[role] = [(f"{images}/{_text(item['fname'])}", int(_first(item["class"]))) for item in items]
    meta = folder / "cars_meta.mat"
    return rows, _car_names(_mat(meta)) if meta.is_file() else None


def _car_names(content: Mapping[str, Any]) -> Mapping[Label, str] | None:
    if "class_names" not in content:
        return None
    return {number: _text(name) for number, name in enumerate(content["class_names"].ravel(), start=1)}


def _values(file: Path) -> dict[str, str]:
    """Return the second part of each line, by the first."""
    lines = (line.split(maxsplit=1) for line in lines_of(read_bytes(file).decode("utf-8", "replace")))
    return {parts[0]: parts[1].strip() for parts in lines if len(parts) == 2}


def _mat(file: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    read_bytes(file)
    try:
        content: dict[str, Any] = loadmat(file)
    except Exception as error:
        # scipy raises errors of many kinds for a damaged file.
        raise InputError(f"{file} is not a MATLAB file that can be read ({error}); get it again") from error
    return content


def _field(content: Mapping[str, Any], key: str, file: Path) -> Any:
    if key not in content:
        raise InputError(f"{file} has no variable {key!r}; get the official file")
    return content[key]


def _numbers(content: Mapping[str, Any], key: str, file: Path) -> list[int]:
    return [int(value) for value in _field(content, key, file).ravel()]


def _first(value: Any) -> Any:
    """Return the only element of a MATLAB cell or matrix."""
    while isinstance(value, np.ndarray):
        value = value.ravel()[0]
    return value


def _text(value: Any) -> str:
    return str(_first(value))
