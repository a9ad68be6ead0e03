"""Which evaluations of finished runs a command means, and their ids, without torch."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from shipbench.data.corruptions import RULES, Corruption
from shipbench.errors import check_all
from shipbench.record import EVALUATED, RunRecord, is_outdated
from shipbench.results.store import Store
from shipbench.runs.evaluation_images import EvaluationImages, OpenedImages, open_images
from shipbench.runs.finished import checkpoint_to_rebuild, resize_of, tested_record, weights_of
from shipbench.settings import canonical_sha256
from shipbench.tasks import Task

_ID_VERSION = 1


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate a run on, and where.

    ``on`` is the task whose images replace those of the run; ``corruptions`` are applied to them one at a time, and
    without any they are left as they are. ``checkpoint`` is the file with the backbone's weights, if the run used one.
    """

    on: Task | None = None
    corruptions: tuple[Corruption, ...] = ()
    data: Path | None = None
    checkpoint: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class PlannedEvaluation:
    """The evaluations of one run, none of them started."""

    store: Store
    parent: RunRecord
    weights: Path
    images: EvaluationImages
    options: EvaluationOptions

    @property
    def run_ids(self) -> dict[str, Corruption | None]:
        """The evaluations by id; None stands for images as they are."""
        return {self._run_id(corruption): corruption for corruption in self.options.corruptions or (None,)}

    def stored(self, run_id: str) -> RunRecord | None:
        """Return the record of an evaluation, or None if it has none, or one of weights that the run had before.

        Raises ``InputError`` if the record cannot be read.
        """
        record = self.store.read(run_id)
        return None if record is None or is_outdated(record.created, self.parent.created) else record

    @cached_property
    def _content(self) -> list[str]:
        """Hashes of the images and of their labels, in order."""
        copy = self.images.copy
        labels = hashlib.sha256(copy.source.open_split("test").labels.astype("<i8").tobytes()).hexdigest()
        return [copy.identity.fingerprint, copy.identity.contents.get("test", ""), labels]

    def _run_id(self, corruption: Corruption | None) -> str:
        """Return a hash of everything that decides the result, but no path: 16 hexadecimal digits."""
        identity = {
            "version": _ID_VERSION,
            "kind": EVALUATED,
            "run": self.parent.run_id,
            "images": self._content,
            "corruption": None if corruption is None else [corruption.name, corruption.severity, RULES],
        }
        return canonical_sha256(identity)[:16]


@dataclass(frozen=True)
class OpenedEvaluation:
    """A run that can be evaluated, and images of its classes, none of which has been read."""

    store: Store
    parent: RunRecord
    weights: Path
    images: OpenedImages
    options: EvaluationOptions

    def planned(self) -> PlannedEvaluation:
        """Return the evaluations after hashing the images; raise ``InputError`` as ``OpenedImages.identified`` does."""
        return PlannedEvaluation(self.store, self.parent, self.weights, self.images.identified(), self.options)


def plan_evaluation(store: Store, run_id: str, options: EvaluationOptions) -> PlannedEvaluation:
    """Open the images on which to evaluate a run, and hash them; decode none and load no model.

    Raises ``InputError`` as ``open_evaluation`` and ``OpenedEvaluation.planned`` do.
    """
    return open_evaluation(store, run_id, options).planned()


def open_evaluation(store: Store, run_id: str, options: EvaluationOptions) -> OpenedEvaluation:
    """Look up a run and open the images on which to evaluate it; read none of them.

    Raises one ``InputError`` that says why the run cannot be evaluated, why its images cannot be opened, that they have
    other classes, and that the file with the backbone's weights is missing.
    """
    parent = tested_record(store, run_id)
    weights = weights_of(store, parent)
    checks: list[Callable[[], Any]] = [
        partial(checkpoint_to_rebuild, parent, options.checkpoint),
        lambda: open_images(parent, resize_of(weights), options.on, options.data),
    ]
    checkpoint, images = check_all(checks)
    return OpenedEvaluation(store, parent, weights, images, dataclasses.replace(options, checkpoint=checkpoint))
