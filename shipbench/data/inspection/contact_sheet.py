"""A contact sheet: a few training images per class, to see at a glance what a task looks like."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from shipbench.data.sources import open_source
from shipbench.data.types import NativeSplit
from shipbench.errors import InputError, system_reason
from shipbench.runtime.files import atomic_path
from shipbench.tasks import Task

CELL = 64
"""Width and height of one image on the sheet, in pixels."""

_LABEL_WIDTH = 28
_GAP = 4
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def write_contact_sheet(task: Task, root: Path | None, file: Path, per_class: int = 4) -> None:
    """Write a PNG with a labelled row of up to ``per_class`` training images for each class.

    Raises ``InputError`` if the name of ``file`` does not end in ``.png`` or the file cannot be written.
    """
    if file.suffix.lower() != ".png":
        raise InputError(f"{file} is not a PNG file name; end it in .png")
    sheet = contact_sheet(open_source(task, root, ("train",)).open_split("train"), task.num_classes, per_class)
    try:
        with atomic_path(file) as temporary:
            sheet.save(temporary, "PNG")
    except OSError as error:
        raise InputError(f"cannot write {file}: {system_reason(error)}") from error


def contact_sheet(split: NativeSplit, num_classes: int, per_class: int) -> Image.Image:
    """Return the sheet: class ``c`` is row ``c % rows`` of column ``c // rows``; a class without images stays blank."""
    width, height = _LABEL_WIDTH + per_class * (CELL + _GAP) + _GAP, CELL + _GAP
    columns = max(1, round(math.sqrt(num_classes * height / width)))
    rows = math.ceil(num_classes / columns)
    sheet = Image.new("RGB", (columns * width, rows * height + _GAP), _PAPER)
    for label in range(num_classes):
        corner = (label // rows * width, label % rows * height + _GAP)
        _draw_class(sheet, corner, label, split, per_class)
    return sheet


def _draw_class(sheet: Image.Image, corner: tuple[int, int], label: int, split: NativeSplit, per_class: int) -> None:
    x, y = corner
    ImageDraw.Draw(sheet).text((x + _GAP, y + CELL // 2 - 6), str(label), fill=_INK)
    for position, index in enumerate(np.flatnonzero(split.labels == label)[:per_class]):
        image = split.open(int(index)).resize((CELL, CELL), Image.Resampling.BICUBIC)
        sheet.paste(image, (x + _LABEL_WIDTH + position * (CELL + _GAP), y))
