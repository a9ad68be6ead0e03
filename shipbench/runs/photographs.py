"""Photographs that a user names: read as squares for a run's model, those that cannot be read set apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipbench.data.framing import resize
from shipbench.data.images import decode_photograph, read_bytes
from shipbench.errors import InputError
from shipbench.tasks.catalogue import Resize


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be read, and the sentence that says why."""

    image: Path
    error: str

    def row(self) -> dict[str, str]:
        """Return the image and the sentence as values of JSON."""
        return {"image": str(self.image), "error": self.error}


def read_photographs(
    images: Sequence[Path], image_size: int, how: Resize
) -> Iterator[tuple[Path, NDArray[np.uint8] | Unreadable]]:
    """Yield each image as a square (H, W, 3), upright as its EXIF orientation says, or with why it cannot be read."""
    for path in images:
        try:
            _require_file(path)
            yield path, resize(decode_photograph(read_bytes(path), path), image_size, how)
        except InputError as error:
            yield path, Unreadable(path, str(error))


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"image {path} {'is a folder' if path.is_dir() else 'does not exist'}; name image files")


def require_a_file(images: Sequence[Path]) -> None:
    """Raise ``InputError`` if none of ``images`` is a file."""
    absent = []
    for path in images:
        try:
            _require_file(path)
        except InputError as error:
            absent.append(Unreadable(path, str(error)))
    refuse_all_unreadable(images, absent)


def refuse_all_unreadable(images: Sequence[Path], unreadable: Sequence[Unreadable]) -> None:
    """Raise one ``InputError`` if none of ``images`` can be read."""
    if not images or len(unreadable) < len(images):
        return
    errors = [each.error for each in unreadable]
    if len(errors) == 1:
        raise InputError(errors[0])
    raise InputError("\n- ".join([f"none of the {len(errors)} images can be read:", *errors]))
