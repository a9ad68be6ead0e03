"""A split's images at the size they were stored or rendered at, one at a time."""

from __future__ import annotations

from pathlib import Path

from shipbench.data.demo.pictures import demo_split
from shipbench.data.types import NativeSplit
from shipbench.data.vtab.folder import open_task, vtab_split
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName


def native_split(task: Task, root: Path | None, name: SplitName) -> NativeSplit:
    """Return a split of a VTAB-1k task (from ``root``) or of a demo task."""
    return vtab_split(open_task(task, root), name) if task.suite == "vtab-1k" else demo_split(task, name)
