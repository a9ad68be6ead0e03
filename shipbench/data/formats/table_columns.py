"""Which columns of a table hold the images, the labels and the splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipbench.counts import counted, named_few
from shipbench.data.formats.options import text_option
from shipbench.data.formats.roles import role_of, role_within, split_columns
from shipbench.data.listings import SplitRole
from shipbench.errors import InputError

IMAGE_COLUMNS = ("image", "file", "filename", "file_name", "path", "filepath", "img", "image_path", "id")
LABEL_COLUMNS = ("label", "class", "target", "category", "y")
SPLIT_COLUMNS = ("split", "set", "subset", "fold", "is_train", "train")

_NEEDED = {"image": IMAGE_COLUMNS, "label": LABEL_COLUMNS}
# Looked for if no column has one of the names above; spaces, hyphens and underscores do not count.
_FURTHER_COLUMNS = {
    "image": (
        *("imagename", "imagefile", "imagefilename", "imageid", "imagepath", "images", "imgpath", "imgname", "imgid"),
        *("filename", "filenames", "filepath", "filepaths", "fname"),
    ),
    "label": ("labels", "labelname", "labelid", "classname", "classlabel", "classid", "targets"),
}
# What 1 and 0 mean in a column called so; spaces, hyphens and underscores do not count.
_SWITCHES: dict[str, tuple[SplitRole, SplitRole]] = {
    "train": ("train", "test"),
    "istrain": ("train", "test"),
    "istest": ("test", "train"),
    **dict.fromkeys(("isval", "isvalid", "isvalidation"), ("val", "train")),
}
_ON = ("1", "1.0", "true")
_OFF = ("0", "0.0", "false")
_PIXELS = re.compile(r"pixels|pixel[-_ ]?[0-9]+|[0-9]+x[0-9]+")


def meaning_of(column: str | None) -> Callable[[str], SplitRole | None]:
    """Return what the values of the split column stand for: names of splits, in some columns also 1 and 0."""
    switch = _SWITCHES.get(_plain(column or ""))
    if switch is None:
        return role_of
    roles = {**dict.fromkeys(_ON, switch[0]), **dict.fromkeys(_OFF, switch[1])}
    return lambda value: roles.get(value.lower()) or role_of(value)


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name)


@dataclass(frozen=True)
class Table:
    """A table: its file, the index of each column by its name in lower case, its rows with their lines, its header.

    ``has_labels`` is false for a list of paths, whose labels are the folders of the images.
    """

    file: Path
    columns: Mapping[str, int]
    rows: Sequence[tuple[int, Sequence[str]]]
    header: Sequence[str] = ()
    has_labels: bool = True

    @property
    def split(self) -> str:
        """The name of the split of a table beside others: its own, or that of its folder."""
        return self.file.stem if role_within(self.file.stem) else self.file.parent.name

    def column(self, kind: str, candidates: Sequence[str], options: Mapping[str, Any]) -> str | None:
        """Return the name of the column of a kind; raise ``InputError`` if several could be it."""
        key = f"{kind}_column"
        chosen = text_option(options, key)
        if chosen is not None:
            if chosen.strip().lower() not in self.columns:
                raise InputError(f"{self.file} has no column {chosen!r} ({key}); its columns are {self._listed()}")
            return chosen.strip().lower()
        names = [name for name in candidates if name in self.columns]
        if not [name for name in names if name != "id"]:
            # A column id has the numbers of the rows, where another column names the file.
            names = self._further(kind) or names
        elif "id" in names:
            names.remove("id")
        if len(names) > 1:
            raise self._several(kind, names)
        return names[0] if names else None

    def _further(self, kind: str) -> list[str]:
        known = _FURTHER_COLUMNS.get(kind, ())
        return [name for name in self.columns if _plain(name) in known]

    def split_column(self, options: Mapping[str, Any]) -> str | None:
        """Return the name of the split column: by its name, else the one that holds nothing but names of splits.

        Raises ``InputError`` if several could be it.
        """
        column = self.column("split", SPLIT_COLUMNS, options)
        if column is not None:
            return column
        image, label = (self.column(kind, names, options) for kind, names in _NEEDED.items())
        taken = {image, label, *LABEL_COLUMNS}
        others = {name: self.values(name) for name in self.columns if name not in taken}
        found = split_columns(others, options, self.file) or [name for name in others if self._is_switch(name)]
        if len(found) > 1:
            raise self._several("split", found)
        return found[0] if found else None

    def _is_switch(self, name: str) -> bool:
        return _plain(name) in _SWITCHES and len(set(self.values(name))) == 2 and self._has_marks_alone(name)

    def _has_marks_alone(self, name: str) -> bool:
        return all(value.lower() in (*_ON, *_OFF) for value in self.values(name))

    def _several(self, kind: str, names: Sequence[str]) -> InputError:
        return InputError(
            f"{self.file} has several columns that could be the {kind} ({', '.join(names)}); "
            f'choose in the task file: {kind}_column = "{names[0]}"'
        )

    def required_column(self, kind: str, candidates: Sequence[str], options: Mapping[str, Any]) -> str:
        """Return the name of the column of a kind; raise ``InputError`` if none or several could be it."""
        name = self.column(kind, candidates, options)
        if name is None:
            raise self._no_column(kind, options)
        return name

    def _no_column(self, kind: str, options: Mapping[str, Any]) -> InputError:
        columns = list(self.columns)
        if kind == "image" and any(map(_PIXELS.fullmatch, columns)):
            return InputError(
                f"{self.file} holds pixels, not names of files; save each image as a file, or all in an npz file"
            )
        if kind == "image" and len(columns) == 1 and " " in columns[0]:
            return InputError(
                f"{self.file} has {self.header[0]!r} in the first line; name the columns there, as in image,label, or "
                "write a list, each line a path with its suffix, a space and a label"
            )
        others = [name for name in columns if kind == "label" and name != self.column("image", IMAGE_COLUMNS, options)]
        guess = self.header[self.columns[others[0]]].strip() if len(others) == 1 else "..."
        return InputError(
            f"{self.file} has no column for the {kind} (its columns are {self._listed()}); "
            f'name it in the task file: {kind}_column = "{guess}"'
        )

    def has_label(self, options: Mapping[str, Any]) -> bool:
        """Return whether the table has a column for the label, or one for each class with a 1 in one of them.

        A column named like one of labels counts too if the task file chooses another one, which the table lacks.
        """
        chosen = text_option(options, "label_column")
        if chosen is not None:
            return any(name in self.columns for name in (chosen.strip().lower(), *LABEL_COLUMNS))
        if self.column("label", LABEL_COLUMNS, options) is not None:
            return True
        return any(value.lower() in _ON for name in self.class_columns(options) for value in self.values(name))

    def labels(self, options: Mapping[str, Any]) -> list[str]:
        """Return the label of each row: that of the label column, else the name of the column that has a 1.

        Raises ``InputError`` if there is no such column, and if several could be it.
        """
        classes = self.class_columns(options)
        if not classes:
            return self.values(self.required_column("label", LABEL_COLUMNS, options))
        names = [self.header[self.columns[name]].strip() for name in classes]
        columns = [self.values(name) for name in classes]
        marked = [
            [name for name, mark in zip(names, row, strict=True) if mark.lower() in _ON]
            for row in zip(*columns, strict=True)
        ]
        odd = [line for (line, _), row in zip(self.rows, marked, strict=True) if len(row) != 1]
        if odd:
            raise InputError(
                f"{self.file} has {counted(len(odd), 'row')} with several or none of the classes {named_few(names)}, "
                f"the first in line {odd[0]}; shipbench trains classifiers with one label per image, so leave such "
                'images out, or name a column in the task file: label_column = "..."'
            )
        return [row[0] for row in marked]

    def class_columns(self, options: Mapping[str, Any]) -> list[str]:
        """Return the columns of zeros and ones that stand for a class each, in a table without a label column.

        They are all columns but those of the image, the split and numbers of rows.
        """
        if text_option(options, "label_column") or self.column("label", LABEL_COLUMNS, options):
            return []
        taken = {self.column("image", IMAGE_COLUMNS, options), "", "id", "index"}
        others = [name for name in self.columns if name not in taken and not name.startswith("unnamed:")]
        unmarked = [name for name in others if not self._has_marks_alone(name)]
        if len(unmarked) > 1 or len(others) - len(unmarked) < 2:
            return []
        split = self.split_column(options)
        classes = [name for name in others if name != split]
        return classes if len(classes) > 1 and unmarked in ([], [split]) else []

    def values(self, name: str) -> list[str]:
        """Return the values of a column without surrounding spaces."""
        index = self.columns[name]
        return [row[index].strip() for _, row in self.rows]

    def _listed(self) -> str:
        return named_few(list(self.columns), 20)
