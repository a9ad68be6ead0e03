"""How an image of any size becomes a square input: resized as the field does, or cropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shipbench.tasks.catalogue import Resize

Size: TypeAlias = tuple[int, int]

_MARGIN = (8, 7)
"""Augmented images are kept at this ratio to the inputs cut from them: 256 pixels for 224."""


@dataclass(frozen=True)
class Framing:
    """How an image becomes a square of ``side`` pixels (see ``resize``)."""

    side: int
    resize: Resize = "squash"


def resize(image: Image.Image, size: int, how: Resize = "squash") -> NDArray[np.uint8]:
    """Resize to a square ``(size, size, 3)`` uint8 with Pillow's bicubic filter.

    ``squash`` resizes both sides to ``size``. ``crop`` resizes the shorter side to ``size``, keeps the aspect ratio,
    and cuts the central square: torchvision's ``Resize(size)`` and ``CenterCrop(size)``, without a margin.
    """
    scaled, (left, top) = scaled_size(image.size, size, how)
    resized = np.asarray(image.resize(scaled, Image.Resampling.BICUBIC))
    return resized[top : top + size, left : left + size]


def scaled_size(size: Size, side: int, how: Resize) -> tuple[Size, Size]:
    """Return the (width, height) to resize an image of ``size`` to, and the (left, top) of the square to cut from it.

    Rounds as torchvision does: the longer side down, the margins of the square to the nearest even number.
    """
    if how == "squash":
        return (side, side), (0, 0)
    width, height = size
    short = min(width, height)
    scaled = int(side * width / short), int(side * height / short)
    return scaled, (round((scaled[0] - side) / 2), round((scaled[1] - side) / 2))


def with_margin(side: int) -> int:
    """Return the side at which images are kept from which random crops for inputs of ``side`` pixels are cut."""
    numerator, denominator = _MARGIN
    return round(side * numerator / denominator)
