"""Widths of texts, estimated without a font engine from the advance widths of DejaVu Sans."""

from __future__ import annotations

# Percent of the font size for the characters from space to tilde. Most sans and serif fonts are narrower.
_WIDTHS = (
    *(32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34),
    *(84, 84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79, 60, 79, 69, 63, 61, 73, 68, 99),
    *(69, 61, 69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63, 62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52),
    *(39, 63, 59, 82, 59, 59, 52, 64, 34, 64, 84),
)
_OTHER = 84


def text_width(text: str, size: float) -> float:
    """Return the width in points of ``text`` at font size ``size``."""
    percent = sum(_WIDTHS[code - 32] if 32 <= (code := ord(letter)) <= 126 else _OTHER for letter in text)
    return percent / 100 * size


def wrapped_to(text: str, room: float, size: float) -> list[str]:
    """Return ``text`` in lines that are at most ``room`` points wide, a longer word alone."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
