"""``npz:PATH``: images and labels as NumPy arrays in one file, as MedMNIST publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from shipbench.counts import counted, named_few
from shipbench.data.formats.array_file import ArrayFile, ArrayRows
from shipbench.data.formats.arrow_tables import entry_name
from shipbench.data.formats.labels import Label, Rows, make_listing
from shipbench.data.formats.options import place, require_known
from shipbench.data.formats.roles import assign_roles
from shipbench.data.listings import ListedSource, Listing, SplitRole
from shipbench.errors import InputError

KEYS = ("splits",)

# How the arrays of the images and labels of a split are called: by MedMNIST, and in the examples of Keras.
_NAMES = (("{}_images", "{}_labels"), ("x_{}", "y_{}"), ("X_{}", "y_{}"))
# Those of a file without splits.
_WHOLE = (("images", "labels"), ("x", "y"), ("X", "y"))
_CHANNELS = (1, 3, 4)


class NpzArrays(ListedSource):
    """The source ``npz``: the arrays ``NAME_images`` and ``NAME_labels``, or ``x_NAME`` and ``y_NAME``, of each split.

    Key of the task file: ``splits`` (role to name of a split).
    """

    option_names = KEYS

    def list(self, location: str, base: Path, options: Mapping[str, Any]) -> Listing:
        """List the images of a file, reading the labels alone; raise ``InputError`` if an array cannot be used."""
        require_known(options, KEYS, "npz")
        arrays = ArrayFile(_existing(place(location, base)))
        splits, notes = _splits(arrays)
        roles, untrainable = assign_roles(splits, options, arrays.file)
        if left_out := [split for split in splits if split not in roles]:
            notes.append(f"left out {counted(len(left_out), 'split')} of {arrays.file}: {named_few(left_out)}")
        images = NpzImages({split: _image_rows(arrays, split, *splits[split]) for split in roles})
        rows: dict[SplitRole, Rows] = {}
        for split, role in roles.items():
            labels = _labels(arrays, splits[split][1])
            kept = [(entry_name(split, row), label) for row, label in enumerate(labels) if _is_label(label)]
            if unlabelled := len(labels) - len(kept):
                notes.append(f"left out {counted(unlabelled, 'image')} of {split} in {arrays.file} without a label")
            rows[role] = [*rows.get(role, ()), *kept]
        signatures = {path: arrays.file for split in rows.values() for path, _ in split}
        return make_listing(rows, images, arrays.file, notes=notes, signatures=signatures, untrainable=untrainable)


def _is_label(label: Label) -> bool:
    return label != -1 and bool(str(label).strip())


@dataclass(frozen=True)
class NpzImages:
    """Images of the arrays of several splits, called ``train/00000012`` after split and row."""

    rows: Mapping[str, ArrayRows]

    def read(self, path: str) -> Image.Image:
        """Return a decoded image; raise ``InputError`` if the file is damaged."""
        split, _, row = path.rpartition("/")
        pixels = self.rows[split].row(int(row))
        return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def _existing(file: Path) -> Path:
    if file.is_dir():
        names = sorted(path.name for path in file.glob("*.npz"))
        raise InputError(f"{file} is a folder; name the file, as in npz:{file / (names[0] if names else 'FILE.npz')}")
    if not file.exists():
        raise InputError(f"npz: {file} does not exist; name the file that holds the arrays")
    return file


def _splits(arrays: ArrayFile) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Return the arrays of the images and labels of each labelled split, and a note on those without labels."""
    for images, labels in _NAMES:
        start, end = images.split("{}")
        names = [name[len(start) :].removesuffix(end) for name in arrays.names if _fits(name, start, end)]
        labelled = {name: (images.format(name), labels.format(name)) for name in names}
        labelled = {name: pair for name, pair in labelled.items() if pair[1] in arrays.names}
        if labelled:
            notes = [f"{name} in {arrays.file} has no labels and is left out" for name in names if name not in labelled]
            return labelled, notes
    if whole := next((pair for pair in _WHOLE if {*pair} <= {*arrays.names}), None):
        return {"train": whole}, []
    listed = named_few(arrays.names, 20) or "none"
    raise InputError(
        f"{arrays.file} has no arrays train_images and train_labels (its arrays: {listed}); save them under these "
        "names, and those of the other splits as val_... and test_..."
    )


def _fits(name: str, start: str, end: str) -> bool:
    return name.startswith(start) and name.endswith(end) and len(name) > len(start + end)


def _image_rows(arrays: ArrayFile, split: str, name: str, label: str) -> ArrayRows:
    header = arrays.header(name)
    count, *size = header.shape or (0,)
    if len(size) not in (2, 3) or (size[2:] and size[2] not in _CHANNELS) or 0 in size:
        shape = " x ".join(map(str, header.shape)) or "of a single number"
        raise InputError(
            f"{arrays.file}: {name} has the shape {shape}; shipbench reads n x height x width, or n x height x width "
            "x 3 for colours, and no volumes"
        )
    if header.dtype != "uint8" or header.is_fortran:
        what = "pixels in Fortran order" if header.is_fortran else f"pixels of the type {header.dtype}"
        raise InputError(f"{arrays.file}: {name} holds {what}; save them as uint8 from 0 to 255, in C order")
    labels = arrays.header(label).shape
    if labels[:1] != (count,):
        raise InputError(
            f"{arrays.file} has {counted(count, 'image')} of {split} but {counted(labels[0] if labels else 1, 'label')}"
            "; save one label per image"
        )
    return arrays.rows(name)


def _labels(arrays: ArrayFile, name: str) -> list[Label]:
    """Return the label of every image of an array of labels: integers, or texts."""
    values = arrays.values(name)
    width = values[0].size if len(values) else 1
    if width != 1:
        raise InputError(
            f"{arrays.file}: {name} has {width} numbers per image, so several labels; shipbench trains with one label "
            "per image"
        )
    values = values.reshape(-1)
    kind = values.dtype.kind
    odd = values[values % 1 != 0] if kind == "f" else values[: 0 if kind in "biuU" else 1]
    if len(odd):
        raise InputError(f"{arrays.file}: {name} holds {str(odd[0])[:60]!r}; save one integer or text per image")
    labels: list[Label] = (values if kind == "U" else values.astype("int64")).tolist()
    return labels
