"""A task's images and labels, opened or in memory, independent of where they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shipbench.data.framing import Framing, Size, resize
from shipbench.errors import ShipbenchError
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

ImageFormat: TypeAlias = Literal["jpeg", "png", "array"]
SplitRole: TypeAlias = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Identity:
    """The fingerprint (SHA-256, hex) of a task's images and labels, and how the images are stored.

    ``contents`` names the images of a split, in order, without their labels (``identities.content_of``): tasks that
    share the images of a split share its decoded pixels. A split without a content shares them with no other task.
    """

    fingerprint: str
    image_format: ImageFormat
    contents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a split: its path in the task folder, with ``/`` between folders, and its label."""

    path: str
    label: int


@dataclass(frozen=True)
class NativeSplit:
    """Labels ``(n,)`` int64, and a function that returns image ``i`` as a Pillow image of mode RGB."""

    labels: NDArray[np.int64]
    open: Callable[[int], Image.Image]


class Source(Protocol):
    """The requested splits of one task, opened but not decoded."""

    @property
    def counts(self) -> Mapping[SplitName, int]:
        """Number of images of each requested split."""

    @property
    def warning(self) -> str:
        """One sentence if ``counts`` differ from the catalogue's, else an empty string."""

    def identity(self, jobs: int | None = None) -> Identity:
        """Return the identity of the task's images and labels, hashing on ``jobs`` threads or one per usable core.

        It covers the test split only if that was requested or is embedded in the package.
        """

    def open_split(self, name: SplitName) -> NativeSplit:
        """Return a requested split, its images at their native sizes."""


@dataclass(frozen=True)
class Split:
    """Images as they are stored, read-only and possibly memory-mapped, and labels ``(n,)`` int64.

    ``pixels`` are ``(n, height, width, 3)`` uint8 RGB. They have the size that ``framing`` asks for, or a smaller one
    that all images have in common; without a framing, their size is the native one.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    framing: Framing | None = None

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """The images as the framing asks for, ``(n, side, side, 3)``; stored smaller ones are resized on first use."""
        if self.framing is None or self.pixels.shape[1:3] == (self.framing.side, self.framing.side):
            return self.pixels
        return np.stack([self.image(index) for index in range(len(self))])

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return one of ``images`` without resizing the others."""
        if self.framing is None:
            return self.pixels[index]
        return resize(Image.fromarray(self.pixels[index]), self.framing.side, self.framing.resize)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class TaskData:
    """The requested splits of a task, and the identity of the copy they come from; ``contents`` as in ``Identity``.

    If the task's images are augmented, those of a training split are larger than the inputs (``framing.with_margin``).
    """

    task: Task
    splits: Mapping[str, Split]
    fingerprint: str
    image_format: ImageFormat
    contents: Mapping[str, str] = field(default_factory=dict)

    def content(self, name: SplitName) -> str:
        """Return a hash that names the images of a split, in order."""
        return self.contents.get(name, f"{self.fingerprint} {name}")

    def __getitem__(self, name: SplitName) -> Split:
        """Return one split; raise ``ShipbenchError`` if it was not requested."""
        if name not in self.splits:
            raise ShipbenchError(f"the data of this run have no {name!r} split, only {sorted(self.splits)}")
        return self.splits[name]


@dataclass(frozen=True, slots=True)
class Finding:
    """An image that cannot be decoded, or that repeats another one, ``equal_to``, byte for byte.

    ``kind`` is ``broken``, ``two classes``, ``repeated``, or the two splits that share the image, as in ``test and
    train``.
    """

    kind: str
    image: str
    equal_to: str = ""


@dataclass(frozen=True)
class TaskReport:
    """The result of verifying one task.

    ``findings`` are all images behind those sentences that name or count only some.

    ``folder`` is ``None`` if the task has none. ``counts`` are entries per split, sizes are ``(width, height)`` in
    pixels, ``classes_seen`` is the number of classes with a training image. A task that cannot be read as a whole has
    no fingerprint.
    """

    task: str
    folder: Path | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    image_format: ImageFormat | None = None
    smallest: Size | None = None
    largest: Size | None = None
    classes_seen: int = 0
    fingerprint: str | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there are no problems; warnings and notes do not count."""
        return not self.problems
