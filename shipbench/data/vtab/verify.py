"""Verification of a VTAB-1k task against the catalogue and against itself."""

from __future__ import annotations

from pathlib import Path

from shipbench.data.images import image_format
from shipbench.data.inspection.checks import report_on
from shipbench.data.types import TaskReport
from shipbench.data.vtab.checks import CHECKS
from shipbench.data.vtab.evidence import VtabEvidence, gather
from shipbench.data.vtab.fingerprints import identity_of
from shipbench.data.vtab.folder import open_task
from shipbench.errors import InputError
from shipbench.tasks import Task


def verify_task(task: Task, base: Path, jobs: int | None) -> TaskReport:
    """Return the report on a task of the copy in ``base``; a task without a folder there is a problem."""
    try:
        evidence = gather(task, base, jobs)
    except InputError as error:
        return TaskReport(task.name, None, (str(error),))
    return report_on(
        evidence,
        CHECKS,
        folder=base / evidence.folder_names[0],
        image_format=image_format({facts.identity.kind for facts in evidence.images.values()}),
        fingerprint=_fingerprint(evidence, base),
    )


def _fingerprint(evidence: VtabEvidence, base: Path) -> str | None:
    try:
        folder = open_task(evidence.task, base)
        return identity_of(folder, {path: facts.identity for path, facts in evidence.images.items()}).fingerprint
    except (InputError, KeyError):
        return None
