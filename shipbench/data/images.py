"""One image file: which kind it is, its pixels as 8-bit RGB, and the field's resize.

Colours are what ``Image.convert("RGB")`` gives, as in the field's loaders: transparency is dropped and EXIF orientation
is ignored. The exception is 16-bit grey, which Pillow would clip and which is scaled here.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from shipbench.data.types import ImageFormat
from shipbench.errors import InputError

ImageKind: TypeAlias = Literal["jpeg", "png", "webp", "webp-lossless", "bmp", "ppm", "unknown"]

MAX_PIXELS = 50_000_000
"""The largest image that is decoded; VTAB-1k's own stay below half a million pixels."""

_PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")
_LOSSY: frozenset[ImageKind] = frozenset({"jpeg", "webp"})
_PNG_END = b"IEND\xaeB`\x82"
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def sniff(data: bytes) -> ImageKind:
    """Tell an image file's kind by its first bytes, whatever its name says."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp-lossless" if data[12:16] == b"VP8L" else "webp"
    if data.startswith(b"BM"):
        return "bmp"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "ppm"
    return "unknown"


def image_format(kinds: Iterable[ImageKind]) -> ImageFormat:
    """Name a copy by its worst file: ``jpeg`` if any is lossy (JPEG, lossy WebP), else ``png`` (any lossless kind)."""
    return "jpeg" if _LOSSY.intersection(kinds) else "png"


def decode(data: bytes, where: object) -> Image.Image:
    """Decode an image file's bytes to a Pillow image of mode RGB.

    Raises ``InputError`` naming ``where`` if the file is no image, is truncated or damaged, has a colour mode without
    an 8-bit meaning, or has more than ``MAX_PIXELS`` pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as image:
            _check_size(image, where)
            image.load()
            if sniff(data) == "png" and _PNG_END not in data:
                raise OSError("image file is truncated")
            return to_rgb(image)
    except _TOO_LARGE as error:
        raise InputError(f"{where} is larger than {MAX_PIXELS} pixels; it is not a VTAB-1k image") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{where} is not an image (JPEG, PNG, WebP, BMP or PPM)") from error
    except _BROKEN as error:
        raise InputError(f"{where} cannot be decoded: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image of any 8-bit, 1-bit or 16-bit grey mode to RGB."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no 8-bit meaning")
    if image.mode.startswith("I"):
        return Image.fromarray(_scale_16_bits(np.asarray(image))).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def resize(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize straight to a square with Pillow's bicubic filter, aspect not kept: ``(size, size, 3)`` uint8."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def _check_size(image: Image.Image, where: object) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"{where} is {image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS}; "
            "it is not a VTAB-1k image"
        )


def _scale_16_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    # Pillow opens 16-bit grey as I;16 or, from PPM and in older versions, as 32-bit I with the same range.
    wide = grey.astype(np.int64).clip(0, 65535)
    return ((wide * 255 + 32767) // 65535).astype(np.uint8)
