"""Which columns of a table hold the images, the labels and the splits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipbench.data.formats.labels import quoted_few
from shipbench.data.formats.options import text_option
from shipbench.data.formats.roles import split_columns
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


@dataclass(frozen=True)
class Table:
    """A table: its file, the index of each column by its name in lower case, and its rows with their lines."""

    file: Path
    columns: Mapping[str, int]
    rows: Sequence[tuple[int, Sequence[str]]]

    def column(self, kind: str, candidates: Sequence[str], options: Mapping[str, Any]) -> str | None:
        """Return the name of the column of a kind; raise ``InputError`` if several could be it."""
        key = f"{kind}_column"
        chosen = text_option(options, key)
        if chosen is not None:
            if chosen.strip().lower() not in self.columns:
                raise InputError(f"{self.file} has no column {chosen!r} ({key}); its columns are {self._listed()}")
            return chosen.strip().lower()
        names = [name for name in candidates if name in self.columns] or self._further(kind)
        if len(names) > 1 and "id" in names:
            # The number of a row, where another column names the file.
            names.remove("id")
        if len(names) > 1:
            raise self._several(kind, names)
        return names[0] if names else None

    def _further(self, kind: str) -> list[str]:
        known = _FURTHER_COLUMNS.get(kind, ())
        return [name for name in self.columns if re.sub(r"[-_ ]", "", name) in known]

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
        found = split_columns(others, options, self.file)
        if len(found) > 1:
            raise self._several("split", found)
        return found[0] if found else None

    def _several(self, kind: str, names: Sequence[str]) -> InputError:
        return InputError(
            f"{self.file} has several columns that could be the {kind} ({', '.join(names)}); "
            f'choose in the task file: {kind}_column = "{names[0]}"'
        )

    def required_column(self, kind: str, candidates: Sequence[str], options: Mapping[str, Any]) -> str:
        """Return the name of the column of a kind; raise ``InputError`` if none or several could be it."""
        name = self.column(kind, candidates, options)
        if name is None:
            raise InputError(
                f"{self.file} has no column for the {kind} (its columns are {self._listed()}); "
                f'name it in the task file: {kind}_column = "..."'
            )
        return name

    def values(self, name: str) -> list[str]:
        """Return the values of a column without surrounding spaces."""
        index = self.columns[name]
        return [row[index].strip() for _, row in self.rows]

    def _listed(self) -> str:
        return quoted_few(list(self.columns), 20)
