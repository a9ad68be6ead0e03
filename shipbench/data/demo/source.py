"""The demo suite as a source: its tasks are embedded, so there is no folder to open."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from shipbench.data.demo import pictures
from shipbench.data.images import ImageIdentity
from shipbench.data.inspection.checks import (
    Checks,
    repeated_images,
    report_on,
    test_images_in_training,
    unseen_classes,
    validation_images_in_train800,
)
from shipbench.data.inspection.evidence import Evidence, ImageFacts
from shipbench.data.types import Entry, Identity, NativeSplit, TaskReport
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

_CHECKS: Checks[Evidence] = Checks(
    problems=(test_images_in_training,),
    warnings=(validation_images_in_train800, repeated_images),
    notes=(unseen_classes,),
)
_DISJOINT: tuple[SplitName, ...] = ("train800", "val200", "test")


@dataclass(frozen=True)
class DemoSource:
    """The requested splits of a demo task."""

    task: Task
    counts: Mapping[SplitName, int]

    @property
    def warning(self) -> str:
        """An empty string: the generators draw what the catalogue says."""
        return ""

    def identity(self, jobs: int | None = None) -> Identity:
        """Return the identity of training and test pictures, drawing them on first use."""
        contents = {str(name): pictures.content(self.task, name) for name in self.counts}
        return Identity(pictures.fingerprint(self.task), "array", contents)

    def open_split(self, name: SplitName) -> NativeSplit:
        """Return a split at the size it was drawn or cut at."""
        split = pictures.native(self.task, name)
        return NativeSplit(split.labels, lambda index: Image.fromarray(split.images[index]))


class DemoSuite:
    """The source ``demo``: the tasks of the demo suite."""

    def open(self, task: Task, root: Path | None, splits: tuple[SplitName, ...]) -> DemoSource:
        """Open splits of a demo task; ``root`` is not used."""
        return DemoSource(task, {name: task.counts[name] for name in splits})

    def verify(self, task: Task, root: Path | None, jobs: int | None = None) -> TaskReport:
        """Compare the pictures of all splits with one another; a damaged picture is drawn again."""
        identity = self.open(task, root, _DISJOINT).identity(jobs)
        return report_on(
            _gather(task), _CHECKS, folder=None, image_format=identity.image_format, fingerprint=identity.fingerprint
        )


def _gather(task: Task) -> Evidence:
    entries: dict[str, tuple[Entry, ...]] = {}
    images: dict[str, ImageFacts] = {}
    for name in _DISJOINT:
        split = pictures.native(task, name)
        entries[name] = tuple(Entry(f"{name}/{index}", int(label)) for index, label in enumerate(split.labels))
        for entry, image in zip(entries[name], split.images, strict=True):
            sha256 = hashlib.sha256(image.tobytes()).hexdigest()
            images[entry.path] = ImageFacts(ImageIdentity(sha256, "array"), (image.shape[1], image.shape[0]), None)
    return Evidence(task, "the demo suite", entries, images)
