"""Sources of images and labels, found through the entry-point group ``shipbench.sources``.

A new data format is one ``ListedSource`` or ``SourceKind`` and one line in that group: loading, inspection and
verification use nothing else. ``Task.source`` names the kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from shipbench.data.few_shots import FewShotSource
from shipbench.data.listings import DrawnSource, ListedSource
from shipbench.data.types import Source, TaskReport
from shipbench.errors import InputError, did_you_mean
from shipbench.runtime.plug_ins import find_plug_in, make_plug_in, registered
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

GROUP = "shipbench.sources"


class SourceKind(Protocol):
    """One kind of source: how to open and how to verify a task that comes from it."""

    def open(self, task: Task, root: Path | None, splits: tuple[SplitName, ...]) -> Source:
        """Open splits of a task, reading no file of the test split unless it is requested.

        ``root`` is the folder given by ``--data``, if any. Raises ``InputError`` if the task is missing or malformed.
        """

    def verify(self, task: Task, root: Path | None, jobs: int | None = None) -> TaskReport:
        """Check every image and label of a task; raise ``InputError`` only if ``root`` itself is unusable."""


def open_source(task: Task, root: Path | None, splits: tuple[SplitName, ...]) -> Source:
    """Open splits of a task with the kind of source it names; raise ``InputError`` as ``SourceKind.open`` does."""
    kind = source_kind(task)
    if not task.shots or isinstance(kind, ListedSource):
        return kind.open(task, root, splits)
    needed: tuple[SplitName, ...] = ("train800", "val200", *(name for name in splits if name == "test"))
    return FewShotSource.draw(task, kind.open(task, root, needed), splits)


def open_filled(task: Task, root: Path | None, splits: tuple[SplitName, ...]) -> Source:
    """Open splits as ``open_source`` does; raise ``InputError`` too if no image is left to validate on."""
    source = open_source(task, root, splits)
    if source.counts.get("val200") == 0:
        raise InputError(
            f"task {task.name} has no image left to validate on, which choosing settings needs; add images, "
            f"{'ask for fewer shots' if task.shots else 'draw fewer training images'}, or train without tuning"
        )
    return source


def completed(task: Task, source: Source) -> Task:
    """Return ``task`` with the sizes and class names that only its opened source tells, if it is not catalogued."""
    return source.task if isinstance(source, DrawnSource) else task


def source_kind(task: Task) -> SourceKind | ListedSource:
    """Return the kind of source that ``task`` names.

    Raises ``InputError`` if it is not installed, and if the task has a location that it cannot read.
    """
    point, kinds = find_plug_in(GROUP, task.source, "source"), registered(GROUP)
    if point is None:
        raise InputError(
            f"task {task.name} needs the source {task.source!r}, which is not installed"
            f"{did_you_mean(task.source, kinds)}; installed sources are {', '.join(kinds) or 'none'}"
        )
    kind: SourceKind | ListedSource = make_plug_in(point, "source")
    if task.location and not isinstance(kind, ListedSource):
        raise InputError(f"source {point.name!r} reads no location such as {task.location!r}; name one of its tasks")
    return kind
