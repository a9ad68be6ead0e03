"""The facts that checks are made on: every label of a task, and every image hashed and decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from shipbench.data.framing import Size
from shipbench.data.images import ImageIdentity
from shipbench.data.types import Entry
from shipbench.tasks import Task


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image's identity, and its width and height in pixels, or the reason why it cannot be decoded."""

    identity: ImageIdentity
    size: Size | None
    fault: str | None


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
