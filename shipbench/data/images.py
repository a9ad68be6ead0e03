"""One image file: its kind and its pixels as 8-bit RGB.

Colours are those of ``Image.convert("RGB")``, as in the field's loaders: transparency is dropped. The exception is
16-bit grey, which is scaled to 8 bits here because Pillow would clip it. ``decode`` ignores EXIF orientation, as for
VTAB-1k; ``decode_photograph`` turns images upright: those of listed sources, and photographs of no data set.
"""

from __future__ import annotations

import hashlib
import io
import logging
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from shipbench.counts import counted
from shipbench.data.conversions import conversion_to_rgb, mark
from shipbench.data.types import ImageFormat
from shipbench.errors import InputError, system_reason
from shipbench.runtime.file_kinds import impostor

ImageKind: TypeAlias = Literal["jpeg", "png", "webp", "webp-lossless", "bmp", "ppm", "tiff", "gif", "array", "unknown"]

MAX_PIXELS = 50_000_000
"""The largest image that is decoded; those of VTAB-1k have fewer than half a million pixels."""

MAX_PHOTOGRAPH_PIXELS = 150_000_000
"""The largest photograph that is decoded; phones take them with up to 108 million pixels."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")
# Photographs of the web that are called .jpg are GIF images now and then, as some of Oxford-IIIT Pet are.
_PHOTOGRAPH_FORMATS = (*_FORMATS, "TIFF", "GIF")
LOSSY: frozenset[ImageKind] = frozenset({"jpeg", "webp"})
"""Kinds of files whose pixels are not those of the original."""

# Pillow also logs what is wrong with an image, which Python would print beside the error.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_PNG_END = b"IEND\xaeB`\x82"
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_ORIENTATION = 0x0112
# EXIF values 2 to 8: how to turn the stored pixels so that the picture stands upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class ImageIdentity:
    """SHA-256 (hex) of an image's bytes, and the kind of file; ``array`` if the image never was a file."""

    sha256: str
    kind: ImageKind


def read_bytes(file: Path) -> bytes:
    """Return the content of a file; raise ``InputError`` naming it if it cannot be read.

    Devices and pipes are refused: a list may name one that never ends.
    """
    try:
        mode = file.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise InputError(f"cannot read {file}: it is not a regular file")
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {system_reason(error)}") from error


def identify_bytes(data: bytes) -> ImageIdentity:
    """Return the identity of an image file from its bytes."""
    return ImageIdentity(hashlib.sha256(data).hexdigest(), sniff(data))


def identify_picture(image: Image.Image) -> ImageIdentity:
    """Return the identity of a decoded image from its mode, size and pixels, and from its palette if it has one."""
    digest = hashlib.sha256(f"{image.mode} {image.size}\0".encode())
    digest.update(image.tobytes())
    digest.update(bytes(image.getpalette() or ()))
    return ImageIdentity(digest.hexdigest(), "array")


def sniff(data: bytes) -> ImageKind:
    """Return the kind of an image file from its bytes; its name does not matter."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp-lossless" if _is_lossless_webp(data) else "webp"
    if data.startswith(b"BM"):
        return "bmp"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "ppm"
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "tiff"
    return "gif" if data.startswith((b"GIF87a", b"GIF89a")) else "unknown"


def _is_lossless_webp(data: bytes) -> bool:
    """Return whether the first chunk with pixels, which a colour profile or metadata may precede, is lossless."""
    start = 12
    while len(name := data[start : start + 4]) == 4:
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        # Chunks have even lengths.
        start += 8 + size + size % 2
    return False


def image_format(kinds: Iterable[ImageKind]) -> ImageFormat:
    """Classify a copy: ``jpeg`` if any file is lossy (JPEG, lossy WebP), else ``png``; ``array`` without any file."""
    distinct = set(kinds)
    if distinct == {"array"}:
        return "array"
    return "jpeg" if distinct & LOSSY else "png"


def decode(data: bytes, where: object) -> Image.Image:
    """Decode an image file of a data set from its bytes to a Pillow image of mode RGB, as the file stores it.

    Raises ``InputError`` naming ``where`` if the bytes are not an image, are truncated or damaged, have floating-point
    pixels, or have more than ``MAX_PIXELS`` pixels.
    """
    return _decode(data, where, MAX_PIXELS, upright=False)


def decode_photograph(data: bytes, where: object) -> Image.Image:
    """Decode a photograph as ``decode`` does, but turn it upright as its EXIF orientation says.

    TIFF and GIF are read as well, the first image of several. Up to ``MAX_PHOTOGRAPH_PIXELS`` pixels are allowed.
    """
    # Pillow warns from 89 million pixels on, and of damaged EXIF data, with which the image stays as stored.
    with _WITHOUT_WARNINGS:
        return _decode(data, where, MAX_PHOTOGRAPH_PIXELS, upright=True)


class _WithoutWarnings:
    """Suppresses warnings while any thread is in the block: ``warnings.catch_warnings`` restores those of another."""

    def __init__(self) -> None:
        self._lock, self._threads, self._filters = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._filters.__exit__(None, None, None)


_WITHOUT_WARNINGS = _WithoutWarnings()


def _decode(data: bytes, where: object, max_pixels: int, *, upright: bool) -> Image.Image:
    formats = _PHOTOGRAPH_FORMATS if upright else _FORMATS
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            _check_size(image, where, max_pixels)
            image.load()
            if sniff(data) == "png" and _PNG_END not in data:
                raise OSError("image file is truncated")
            return to_rgb(_turned(image) if upright else image)
    except _TOO_LARGE as error:
        raise InputError(f"{where} is larger than the allowed {max_pixels} pixels; scale it down") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{where} {_why_unidentified(data, formats)}") from error
    except _BROKEN as error:
        raise InputError(f"{where} cannot be decoded: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image to RGB and mark it with what that changed (``conversions.conversion_of``).

    Raises ``ValueError`` for floating-point pixels, which have no 8-bit meaning.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no 8-bit meaning")
    conversion = conversion_to_rgb(image)
    if image.mode.startswith("I"):
        image = Image.fromarray(_scale_16_bits(np.asarray(image)))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    rgb = image.convert("RGB")
    mark(rgb, conversion)
    return rgb


def _turned(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except (*_BROKEN, TypeError):
        # Damaged metadata leave the pixels readable.
        turn = None
    return image if turn is None else image.transpose(turn)


def _why_unidentified(data: bytes, formats: Sequence[str]) -> str:
    kind = sniff(data)
    if kind == "tiff" and "TIFF" in formats and (layout := _tiff_layout(data)):
        return f"is a TIFF image with {layout}, which is not read; convert it to 8-bit RGB"
    if kind.partition("-")[0].upper() in formats:
        return f"cannot be decoded: the {kind} file is truncated or damaged"
    return impostor(data, "convert it to PNG") or "is not an image (JPEG, PNG, WebP, BMP or PPM)"


def _tiff_layout(data: bytes) -> str | None:
    """Return the channels and bits of a TIFF image; ``None`` if its header cannot be read."""
    try:
        stream = io.BytesIO(data)
        tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        channels, bits = tags.get(TiffImagePlugin.SAMPLESPERPIXEL), tags.get(TiffImagePlugin.BITSPERSAMPLE)
        return f"{counted(channels, 'channel')} of {bits[0]} bits" if channels and bits else None
    except _BROKEN:
        return None


def _check_size(image: Image.Image, where: object, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise InputError(
            f"{where} is {image.width} x {image.height} pixels, more than the allowed {max_pixels}; scale it down"
        )


def _scale_16_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    # Pillow opens 16-bit grey as I;16, but from PPM and in older versions as 32-bit I with the same range.
    wide = grey.astype(np.int64).clip(0, 65535)
    return ((wide * 255 + 32767) // 65535).astype(np.uint8)
