"""Small copies of the FGVC data sets, with their official label files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from tests.data.formats.trees import tree

# Ten training and two test images of each of two classes.
COUNT = 12


def birds(folder: Path, classes: Sequence[tuple[int, str]] = ((1, "001.Grey_Bird"), (2, "002.Tiny_Finch"))) -> Path:
    """Write CUB-200-2011 or NABirds with its text files."""
    paths = [f"{name}/{name}_{number}.jpg" for _, name in classes for number in range(COUNT)]
    labels = [label for label, _ in classes for _ in range(COUNT)]
    training = [int(number < COUNT - 2) for _ in classes for number in range(COUNT)]
    tree(folder / "images", *paths)
    for name, values in {
        "images.txt": paths,
        "image_class_labels.txt": labels,
        "train_test_split.txt": training,
    }.items():
        (folder / name).write_text("".join(f"{number} {value}\n" for number, value in enumerate(values, start=1)))
    nodes = [*classes, (max(label for label, _ in classes) + 1, "inner node")]
    (folder / "classes.txt").write_text("".join(f"{label} {name}\n" for label, name in nodes))
    return folder


def flowers(folder: Path) -> Path:
    """Write Oxford Flowers: images 1 to 24, of which every seventh is val and every fifth test."""
    numbers = range(1, 2 * COUNT + 1)
    tree(folder / "jpg", *(f"image_{number:05d}.jpg" for number in numbers))
    test = [number for number in numbers if number % 5 == 0]
    val = [number for number in numbers if number % 7 == 0 and number not in test]
    train = [number for number in numbers if number not in (*test, *val)]
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1 + number % 2 for number in numbers]], np.uint8)})
    savemat(folder / "setid.mat", {"trnid": np.array([train]), "valid": np.array([val]), "tstid": np.array([test])})
    return folder


def dogs(folder: Path) -> Path:
    """Write Stanford Dogs."""
    breeds = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel")
    paths = {breed: [f"{breed}/{breed[:9]}_{number}.jpg" for number in range(COUNT)] for breed in breeds}
    tree(folder / "Images", *(path for breed in breeds for path in paths[breed]))
    for name, part in (("train", slice(0, COUNT - 2)), ("test", slice(COUNT - 2, COUNT))):
        listed = [(path, label) for label, breed in enumerate(breeds, start=1) for path in paths[breed][part]]
        cells = np.empty((len(listed), 1), object)
        cells[:, 0] = [path for path, _ in listed]
        content = {"file_list": cells, "labels": np.array([[label] for _, label in listed])}
        savemat(folder / f"{name}_list.mat", content)
    return folder


def _records(rows: Sequence[dict[str, Any]]) -> np.ndarray[Any, Any]:
    records = np.empty((1, len(rows)), [(key, object) for key in rows[0]])
    for index, row in enumerate(rows):
        records[0, index] = tuple(row.values())
    return records


def cars(folder: Path) -> Path:
    """Write Stanford Cars with ``cars_annos.mat``."""
    numbers = range(1, 2 * COUNT + 1)
    tree(folder / "car_ims", *(f"{number:06d}.jpg" for number in numbers))
    rows = [
        {
            "relative_im_path": f"car_ims/{number:06d}.jpg",
            "class": np.uint8(1 + number % 2),
            "test": np.uint8(number > 2 * COUNT - 4),
        }
        for number in numbers
    ]
    names = np.empty((1, 2), object)
    names[0, :] = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
    savemat(folder / "cars_annos.mat", {"annotations": _records(rows), "class_names": names})
    return folder


def cars_devkit(folder: Path) -> Path:
    """Write Stanford Cars as its devkit, with training and test images numbered apart."""
    for part, count, name in (("train", 20, "cars_train_annos.mat"), ("test", 4, "cars_test_annos_withlabels.mat")):
        files = [f"{number:05d}.jpg" for number in range(1, count + 1)]
        tree(folder / f"cars_{part}", *files)
        rows = [{"class": np.uint8(1 + number % 2), "fname": file} for number, file in enumerate(files)]
        savemat(folder / name, {"annotations": _records(rows)})
    return folder
