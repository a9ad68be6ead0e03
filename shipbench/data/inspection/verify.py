"""Verification of tasks, each by the kind of source it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shipbench.data.inspection.listed import verify_listed
from shipbench.data.listings import ListedSource
from shipbench.data.sources import source_kind
from shipbench.data.types import TaskReport
from shipbench.errors import InputError
from shipbench.tasks.catalogue import VTAB, Task


def verify(root: Path | None, *, tasks: Iterable[Task] = VTAB.tasks, jobs: int | None = None) -> list[TaskReport]:
    """Check every image and label of the tasks, decoding on ``jobs`` threads or one per usable core.

    Faults of a task are in its report. Raises ``InputError`` if ``root`` is not a folder or holds no task at all, and
    if the source of a task outside the catalogue cannot be opened.
    """
    return [_verify_task(task, root, jobs) for task in tasks]


def _verify_task(task: Task, root: Path | None, jobs: int | None) -> TaskReport:
    kind = source_kind(task)
    if isinstance(kind, ListedSource):
        try:
            source = kind.open(task, root, ("train", "test"))
        except InputError as error:
            if not task.catalogued:
                raise
            return TaskReport(task.name, None, (str(error),))
        return verify_listed(source, jobs)
    return kind.verify(task, root, jobs)
