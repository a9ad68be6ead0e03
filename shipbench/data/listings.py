"""Sources whose tasks are given by a location: every image listed with its class, none of them read.

A new format is one subclass of ``ListedSource`` and one line in the entry-point group ``shipbench.sources``, whose name
is the prefix of its locations: ``folder`` in ``folder:/data/bugs``. Drawing, holding out test images, fingerprints and
verification are the same for all formats and implemented once, in ``ListedSource``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from PIL import Image

from shipbench.data.types import Entry

SplitRole: TypeAlias = Literal["train", "val", "test"]


class Images(Protocol):
    """Reads the images of a listing; called from several threads at once."""

    def read(self, path: str) -> bytes | Image.Image:
        """Return the image called ``path`` in the listing: the encoded file, or a decoded Pillow image.

        Raises ``InputError`` for an image that cannot be read.
        """


@dataclass(frozen=True)
class Listing:
    """All images of a source, listed but not read.

    ``classes`` are the names of the classes in the order of their numbers. ``splits`` holds only the splits that the
    source itself has, each in an order that depends on its content alone; ``Entry.path`` is unique to an image and does
    not depend on where the source lies. ``notes`` are sentences for the user: files skipped, labels renumbered, modes
    converted. ``signatures`` maps each path to the file that holds the image (the image itself, or a container with
    many); as long as the sizes and times of these files stay the same, the images are not hashed again. It is None if
    the images do not come from files.
    """

    classes: tuple[str, ...]
    splits: Mapping[SplitRole, tuple[Entry, ...]]
    images: Images
    notes: tuple[str, ...] = ()
    signatures: Mapping[str, Path] | None = None


class ListedSource(ABC):
    """A ``SourceKind`` whose tasks are given by a location; a format implements ``list`` and nothing else."""

    @abstractmethod
    def list(self, location: str, base: Path, options: Mapping[str, Any]) -> Listing:
        """List all images at a location.

        A relative ``location`` starts from the folder ``base``: that of the task file, or the working directory.
        ``options`` are the keys of the task file that only this format reads, such as ``label_column``; the format
        refuses those that it does not know. Raises ``InputError`` if the location cannot be read as this format.
        """
