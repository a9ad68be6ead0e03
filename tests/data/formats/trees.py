"""Builders of small data sets on disk, with one colour per image."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from shipbench.data.listings import Listing


def picture(path: str, kind: str = "PNG") -> bytes:
    """Encode an image whose colour depends on its path."""
    number = zlib.crc32(path.encode())
    stream = io.BytesIO()
    Image.new("RGB", (6, 5), (number % 256, number // 256 % 256, number // 65536 % 256)).save(stream, kind)
    return stream.getvalue()


def tree(root: Path, *paths: str) -> Path:
    """Write an image at each path below ``root``; other suffixes than those of images get text."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            file.mkdir()
        else:
            file.write_bytes(picture(path) if path.lower().endswith((".png", ".jpg", ".jpeg")) else b"text")
    return root


def table(root: Path, text: str, name: str = "labels.csv") -> Path:
    """Write a table and an image for every path ending in ``.png`` that it names; return the table."""
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    tree(root, *{cell for line in text.split("\n") for cell in line.replace(";", ",").split(",") if ".png" in cell})
    return root / name


def labels(listing: Listing) -> Mapping[str, list[tuple[str, str]]]:
    """Return path and class name of every entry, by split."""
    return {
        role: [(entry.path, listing.classes[entry.label]) for entry in entries]
        for role, entries in listing.splits.items()
    }


def sizes(listing: Listing) -> dict[str, int]:
    """Return the number of images of each split."""
    return {role: len(entries) for role, entries in listing.splits.items()}
