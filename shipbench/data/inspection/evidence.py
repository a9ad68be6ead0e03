"""The facts that checks are made on: every label of a task, and every image hashed and decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from shipbench.data.conversions import conversion_of
from shipbench.data.framing import Size
from shipbench.data.images import ImageIdentity
from shipbench.data.types import Entry
from shipbench.errors import InputError
from shipbench.tasks import Task


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image's identity, and its width and height in pixels, or the reason why it cannot be decoded.

    ``conversion`` says what converting it to RGB changes.
    """

    identity: ImageIdentity
    size: Size | None
    fault: str | None
    conversion: str = ""

    @classmethod
    def of(cls, identity: ImageIdentity, decode: Callable[[], Image.Image]) -> ImageFacts:
        """Return the facts of an image that ``decode`` returns as RGB, or does not with an ``InputError``."""
        try:
            image = decode()
        except InputError as error:
            return cls(identity, None, str(error))
        return cls(identity, image.size, None, conversion_of(image))


@dataclass(frozen=True)
class Evidence:
    """A task's data: where they are, their entries by split, and the facts of every readable image by path.

    ``training`` are the disjoint splits that are no test split.
    """

    task: Task
    place: str
    splits: Mapping[str, tuple[Entry, ...]]
    images: Mapping[str, ImageFacts]

    training: ClassVar[tuple[str, ...]] = ("train800", "val200")

    def entries(self, *names: str) -> tuple[Entry, ...]:
        """Return the entries of some splits, one after the other; a missing split has none."""
        return tuple(entry for name in names for entry in self.splits.get(name, ()))

    def where(self, path: str) -> str:
        """Return where an image is, for the user to find it."""
        return path
