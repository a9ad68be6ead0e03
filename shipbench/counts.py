"""Counts with their nouns, for sentences of every part of the package."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``2 images``, and with the plural of an irregular one."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
