"""Which evaluations of finished runs a command means, and their ids, without torch."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shipbench.data.corruptions import RULES, Corruption
from shipbench.errors import InputError
from shipbench.record import EVALUATED, RunRecord, is_outdated
from shipbench.results.store import Store
from shipbench.runs.evaluation_images import EvaluationImages, evaluation_images
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


def plan_evaluation(store: Store, run_id: str, options: EvaluationOptions) -> PlannedEvaluation:
    """Open the images on which to evaluate a run; decode none and load no model.

    Raises ``InputError`` for a run that cannot be evaluated, for images of other classes, and for options that leave
    nothing to evaluate.
    """
    parent = tested_record(store, run_id)
    weights = weights_of(store, parent)
    if options.on is None and not options.corruptions:
        raise InputError("name the images with --on, or a corruption of the run's test images with --corrupt")
    checkpoint = checkpoint_to_rebuild(parent, options.checkpoint)
    images = evaluation_images(parent, resize_of(weights), options.on, options.data)
    return PlannedEvaluation(store, parent, weights, images, dataclasses.replace(options, checkpoint=checkpoint))
