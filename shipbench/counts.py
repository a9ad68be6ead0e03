"""Counts with their nouns, sizes with their units and shortened lists, for sentences of every part of the package."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``1,200 images``, and with the plural of an irregular one."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def file_size(size: int) -> str:
    """Return a number of bytes in a unit that shows it: ``4 kB``, ``12.3 MB``; files are never shown as empty."""
    return f"{size / 1e6:.1f} MB" if size >= 999_500 else f"{max(1, round(size / 1e3))} kB"


def named_few(names: Sequence[object], most: int = 3) -> str:
    """Return the first names, comma-separated, and the number of the others: ``a, b, c and 2 more``."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
