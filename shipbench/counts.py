"""Counts with their nouns and sizes with their units, for sentences of every part of the package."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``1,200 images``, and with the plural of an irregular one."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def file_size(size: int) -> str:
    """Return a number of bytes in a unit that shows it: ``4 kB``, ``12.3 MB``; files are never shown as empty."""
    return f"{size / 1e6:.1f} MB" if size >= 999_500 else f"{max(1, round(size / 1e3))} kB"
