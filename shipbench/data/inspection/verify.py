"""Check a copy of VTAB-1k against the catalogue and against itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shipbench.data.images import image_format
from shipbench.data.inspection.checks import NOTES, PROBLEMS, WARNINGS, Check
from shipbench.data.inspection.evidence import Evidence, Size, gather
from shipbench.data.types import ImageFormat
from shipbench.data.vtab.fingerprints import identity_of
from shipbench.data.vtab.folder import find_base, open_task
from shipbench.errors import InputError
from shipbench.tasks.catalogue import VTAB, Task


@dataclass(frozen=True)
class TaskReport:
    """What a copy holds of one task, and what is wrong with it.

    ``counts`` are lines per split file; sizes are ``(width, height)`` in pixels; ``classes_seen`` counts the classes of
    the training images; a copy that cannot be read as a whole has no fingerprint.
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

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; warnings and notes do not count."""
        return not self.problems


def verify(root: Path, *, tasks: Iterable[Task] = VTAB.tasks, jobs: int | None = None) -> list[TaskReport]:
    """Check every task of a copy of VTAB-1k, decoding all images on ``jobs`` threads or one per usable core.

    Raises ``InputError`` if ``root`` is not a folder or holds no task at all.
    """
    base = find_base(root)
    return [_verify_task(task, base, jobs) for task in tasks]


def _verify_task(task: Task, base: Path, jobs: int | None) -> TaskReport:
    try:
        evidence = gather(task, base, jobs)
    except InputError as error:
        return TaskReport(task.name, None, (str(error),))
    sizes = sorted({facts.size for facts in evidence.images.values() if facts.size}, key=lambda size: size[0] * size[1])
    return TaskReport(
        task=task.name,
        folder=base / evidence.folder_names[0],
        problems=_run(PROBLEMS, evidence),
        warnings=_run(WARNINGS, evidence),
        notes=_run(NOTES, evidence),
        counts={name: len(split.entries) for name, split in evidence.splits.items()},
        image_format=image_format({facts.identity.kind for facts in evidence.images.values()}) if sizes else None,
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        classes_seen=len({entry.label for entry in evidence.entries("train800", "val200")}),
        fingerprint=_fingerprint(evidence, base),
    )


def _run(checks: Iterable[Check], evidence: Evidence) -> tuple[str, ...]:
    return tuple(sentence for check in checks for sentence in check(evidence))


def _fingerprint(evidence: Evidence, base: Path) -> str | None:
    try:
        source = open_task(evidence.task, base)
        return identity_of(source, {path: facts.identity for path, facts in evidence.images.items()}).fingerprint
    except (InputError, KeyError):
        return None
