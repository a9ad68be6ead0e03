"""What converting images to RGB changed: each image is marked when it is converted, and sentences count the marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from PIL import Image

from shipbench.counts import counted

_MARK = "conversion"
_TRANSPARENCY = "transparency"
_ALPHA = "with an opaque alpha channel"
_PALETTE = "with a palette"
_WORDS = {"RGB": "", "RGBA": _ALPHA, "RGBa": _ALPHA, "P": _PALETTE, "PA": _PALETTE}
_GREY = ("1", "L", "LA", "I")


def conversion_to_rgb(image: Image.Image) -> str:
    """Return in words what converting a Pillow image to RGB changes; an empty string if it is RGB."""
    # Of 16-bit grey, a colour that stands for transparent is ignored.
    if image.mode.startswith(_GREY[-1]):
        return "grey"
    if image.has_transparency_data and _is_transparent(image):
        return _TRANSPARENCY
    return "grey" if image.mode in _GREY else _WORDS.get(image.mode, image.mode)


def _is_transparent(image: Image.Image) -> bool:
    """Return whether a pixel is not opaque."""
    alpha = (image if "A" in image.getbands() else image.convert("RGBA")).getchannel("A")
    return any(alpha.histogram()[:-1])


def mark(image: Image.Image, conversion: str) -> None:
    """Note on a converted image what the conversion changed."""
    image.info[_MARK] = conversion


def conversion_of(image: Image.Image) -> str:
    """Return what ``mark`` noted on an image; an empty string if it was not converted."""
    return str(image.info.get(_MARK, ""))


def transparency_notes(conversions: Iterable[str], noun: str) -> list[str]:
    """Return a sentence that counts the images whose transparency is dropped, if there are any."""
    number = sum(conversion == _TRANSPARENCY for conversion in conversions)
    have = "has" if number == 1 else "have"
    return [f"{counted(number, noun)} {have} transparency, which is dropped"] if number else []


def conversion_notes(conversions: Iterable[str], noun: str = "image") -> list[str]:
    """Return sentences that count the converted images: those that lose transparency, and the others by kind."""
    numbers = Counter(conversions)
    others = sorted((-number, kind) for kind, number in numbers.items() if kind not in ("", _TRANSPARENCY))
    listed = ", ".join(f"{-number:,} {kind}" for number, kind in others)
    converted = [f"{noun}s converted to RGB: {listed}"] if listed else []
    return [*transparency_notes(numbers.elements(), noun), *converted]
