"""Evaluate finished runs from their stored weights: on other images, or on corrupted ones.

Every evaluation has a record and predictions, under an id of its own. The record repeats what describes the model in
the record of its run, ``parent_run``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.backbones.loading import RANDOM
from shipbench.data.corruptions import RULES, Corruption
from shipbench.data.types import Split
from shipbench.errors import InputError
from shipbench.events import DISCARD, Emitter
from shipbench.hardware.determinism import uses_tf32
from shipbench.hardware.device import resolve_device
from shipbench.hardware.precision import ComputeContext, resolve_precision
from shipbench.record import EVALUATED, NAN, RunRecord
from shipbench.results.store import RunTables, Store
from shipbench.runs.evaluation_images import EvaluationImages, evaluation_images
from shipbench.runs.export import Exported, load_exported, trained_record, weights_of
from shipbench.runs.recording import made_here, majority_class_accuracy, mean_class_accuracy
from shipbench.runs.session import claimed_after_waiting
from shipbench.settings import canonical_json
from shipbench.tasks import Task
from shipbench.tasks.catalogue import Resize
from shipbench.training.history import Evaluation
from shipbench.training.inputs import ImageInputs, image_inputs
from shipbench.training.loop import evaluate
from shipbench.training.resampling import HostFraming

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

    @cached_property
    def compute(self) -> ComputeContext:
        """The device, and the precision of the run."""
        device = resolve_device(self.options.device)
        return ComputeContext(device, resolve_precision(self.parent.precision, device))

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
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]


def plan_evaluation(store: Store, run_id: str, options: EvaluationOptions) -> PlannedEvaluation:
    """Open the images on which to evaluate a run; decode none and load no model.

    Raises ``InputError`` for a run that cannot be evaluated, for images of other classes, for options that leave
    nothing to evaluate, and for a device that this machine does not have.
    """
    resolve_device(options.device)
    weights = weights_of(store, run_id)
    parent = tested_record(store, run_id)
    if options.on is None and not options.corruptions:
        raise InputError("name the images with --on, or a corruption of the run's test images with --corrupt")
    checkpoint = checkpoint_of(parent, options.checkpoint)
    images = evaluation_images(parent, resize_of(weights), options.on, options.data)
    return PlannedEvaluation(store, parent, weights, images, dataclasses.replace(options, checkpoint=checkpoint))


def tested_record(store: Store, run_id: str) -> RunRecord:
    """Return the record of a finished run that was tested; raise ``InputError`` for any other."""
    record = trained_record(store, run_id)
    if record.protocol != "final":
        raise InputError(f"run {run_id} is a trial of a tuning, which never opens the test split; name a tested run")
    return record


def checkpoint_of(record: RunRecord, checkpoint: str | None) -> str | None:
    """Return the backbone's weights to load for a run; raise ``InputError`` if the run used a file that is not named.

    ``checkpoint`` is the file that the user named.
    """
    if checkpoint is None and record.checkpoint not in ("", RANDOM):
        raise InputError(
            f"run {record.run_id} was trained on the weights in {record.checkpoint}; name that file with --checkpoint"
        )
    return RANDOM if checkpoint is None and record.checkpoint == RANDOM else checkpoint


def execute_evaluation(
    planned: PlannedEvaluation, *, force: bool = False, emitter: Emitter = DISCARD
) -> Iterator[RunRecord]:
    """Yield the record of each evaluation, in order; those that are stored already are not computed again.

    With ``force``, all are computed. An evaluation that another process is computing is waited for. Raises
    ``StoreError`` if the results folder cannot be written to.
    """
    scoring = _Scoring(planned)
    for run_id, corruption in planned.run_ids.items():
        record = None if force else planned.store.read(run_id)
        if record is not None:
            yield record
            continue
        with claimed_after_waiting(planned.store, Emitter(run_id, emitter.listener)) as session:
            # The process that held the claim may have stored the record.
            record = None if force else planned.store.read(run_id)
            if record is None:
                record, tables = scoring.score(run_id, corruption)
                session.confirm()
                planned.store.write(record, tables)
        yield record


class _Scoring:
    """The model and the images of a plan, loaded when the first evaluation needs them."""

    def __init__(self, planned: PlannedEvaluation) -> None:
        self.planned = planned

    @cached_property
    def exported(self) -> Exported:
        exported = load_exported(self.planned.weights, checkpoint=self.planned.options.checkpoint)
        exported.model.to(self.planned.compute.device)
        cast_frozen_weights(exported.model, self.planned.compute)
        return exported

    @cached_property
    def split(self) -> Split:
        return self.planned.images.load(self.exported.preprocessing.image_size)

    def score(self, run_id: str, corruption: Corruption | None) -> tuple[RunRecord, RunTables]:
        """Return the record and the predictions of one evaluation."""
        compute = self.planned.compute
        inputs = _inputs(self.split, self.exported, compute, corruption)
        started = time.perf_counter()
        evaluation = evaluate(self.exported.model, inputs, compute, capture="off")
        compute.wait()
        record = _record(self.planned, run_id, corruption, evaluation, inputs.labels, time.perf_counter() - started)
        labels = inputs.labels.cpu().numpy()
        predictions = {
            "index": list(range(len(labels))),
            "label": labels,
            "predicted": evaluation.predicted.numpy(),
            "confidence": evaluation.confidence.numpy(),
        }
        return record, RunTables(predictions=predictions)


def _inputs(split: Split, exported: Exported, compute: ComputeContext, corruption: Corruption | None) -> ImageInputs:
    inputs = image_inputs(split, exported.preprocessing, compute.device, resident=False)
    if corruption is None:
        return inputs
    # Squares are corrupted, as the model would see them, on the host, so that pixels do not depend on the device.
    framed = split.framing is None or split.pixels.shape[1:3] == (split.framing.side, split.framing.side)
    frame = () if framed or split.framing is None else (HostFraming(split.framing),)
    return dataclasses.replace(inputs, steps=(*frame, corruption), on_host=True)


def _record(
    planned: PlannedEvaluation,
    run_id: str,
    corruption: Corruption | None,
    evaluation: Evaluation,
    labels: Tensor,
    seconds: float,
) -> RunRecord:
    identity, task, compute = planned.images.copy.identity, planned.images.task, planned.compute
    return dataclasses.replace(
        planned.parent,
        run_id=run_id,
        kind=EVALUATED,
        parent_run=planned.parent.run_id,
        corruption="" if corruption is None else corruption.name,
        severity=0 if corruption is None else corruption.severity,
        task=planned.parent.task if planned.images.same_data else task.name,
        source=task.source,
        data_fingerprint=identity.fingerprint,
        image_format=identity.image_format,
        n_test=len(labels),
        final_test_acc=evaluation.accuracy,
        final_test_mean_class_acc=mean_class_accuracy(labels, evaluation.predicted),
        chance_acc=majority_class_accuracy(labels),
        eval_seconds=seconds,
        eval_images_per_second=len(labels) / seconds,
        device=str(compute.device),
        precision=compute.precision,
        threads=torch.get_num_threads(),
        tf32=int(uses_tf32(compute.device)),
        **_NOT_TRAINED,
        **made_here(),
    )


_NOT_TRAINED: dict[str, Any] = {
    "best_test_acc": NAN,
    "best_test_epoch": -1,
    "train_loss": NAN,
    "train_seconds": NAN,
    "train_images_per_second": NAN,
    "peak_memory_bytes": 0,
    "micro_batch": 0,
    "captured": 0,
    "stacked_runs": 1,
}


def resize_of(weights: Path) -> Resize:
    """Return how the images of a run became squares, from the metadata of its weights."""
    with safe_open(weights, framework="pt") as stream:
        return "crop" if (stream.metadata() or {}).get("resize") == "crop" else "squash"
