"""A contact sheet: a few training images per class, to see at a glance what a task looks like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from shipbench.data.sources import completed, open_source
from shipbench.data.types import NativeSplit
from shipbench.errors import InputError, system_reason
from shipbench.runtime.files import atomic_path, check_output
from shipbench.tasks import Task

CELL = 64
"""Width and height of one image on the sheet, in pixels."""

_LETTER_WIDTH = 6
_LONGEST_NAME = 20
_MOST_CLASSES = 1000
_PER_CLASS = 4
_GAP = 4
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def write_contact_sheet(task: Task, root: Path | None, file: Path) -> None:
    """Write a PNG with a row of up to four training images for each of the first 1000 classes, with its name.

    Raises ``InputError`` if the name of ``file`` does not end in ``.png`` or the file cannot be written.
    """
    check_sheet(file)
    source = open_source(task, root, ("train",))
    task = completed(task, source)
    names = task.class_names or [str(label) for label in range(task.num_classes)]
    sheet = contact_sheet(source.open_split("train"), names[:_MOST_CLASSES], _PER_CLASS)
    try:
        with atomic_path(file) as temporary:
            sheet.save(temporary, "PNG")
    except OSError as error:
        raise InputError(f"cannot write {file}: {system_reason(error)}") from error


def check_sheet(file: Path, option: str = "file") -> None:
    """Raise ``InputError``, which names ``option``, for a file that is no PNG file or cannot be written to."""
    if file.suffix.lower() != ".png":
        raise InputError(f"{file} is not a PNG file name; end it in .png")
    check_output(file, option, folder=False)


def contact_sheet(split: NativeSplit, names: Sequence[str], per_class: int) -> Image.Image:
    """Return the sheet: class ``c`` is row ``c % rows`` of column ``c // rows``; a class without images stays blank."""
    # The built-in font has no letters beyond Latin-1.
    labels = [name[:_LONGEST_NAME].encode("latin-1", "replace").decode("latin-1") for name in names]
    margin = max(4, *map(len, labels)) * _LETTER_WIDTH + _GAP
    width, height = margin + per_class * (CELL + _GAP) + _GAP, CELL + _GAP
    columns = max(1, round(math.sqrt(len(names) * height / width)))
    rows = math.ceil(len(names) / columns)
    sheet = Image.new("RGB", (columns * width, rows * height + _GAP), _PAPER)
    for number, label in enumerate(labels):
        x, y = number // rows * width, number % rows * height + _GAP
        ImageDraw.Draw(sheet).text((x + _GAP, y + CELL // 2 - 6), label, fill=_INK)
        for position, index in enumerate(np.flatnonzero(split.labels == number)[:per_class]):
            image = split.open(int(index)).resize((CELL, CELL), Image.Resampling.BICUBIC)
            sheet.paste(image, (x + margin + position * (CELL + _GAP), y))
    return sheet
