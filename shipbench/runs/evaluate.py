"""Evaluate finished runs from their stored weights: on other images, or on corrupted ones.

Every evaluation has a record and predictions, under an id of its own. The record repeats what describes the model in
the record of its run, ``parent_run``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.data.corruptions import Corruption
from shipbench.data.types import Split
from shipbench.events import Emitter, Listener
from shipbench.hardware.determinism import fix_kernels, uses_tf32
from shipbench.hardware.device import device_name, resolve_device
from shipbench.hardware.precision import ComputeContext, resolve_precision
from shipbench.methods import package_of
from shipbench.record import EVALUATED, NAN, RunRecord
from shipbench.results.store import RunTables
from shipbench.runs.evaluation_plan import PlannedEvaluation
from shipbench.runs.export import Exported, load_exported
from shipbench.runs.recording import made_here, majority_class_accuracy, mean_class_accuracy, predictions_of
from shipbench.runs.session import claimed_after_waiting
from shipbench.training.history import Evaluation
from shipbench.training.inputs import ImageInputs, image_inputs
from shipbench.training.loop import evaluate
from shipbench.training.resampling import HostFraming


def execute_evaluation(
    planned: PlannedEvaluation, *, force: bool = False, listener: Listener | None = None
) -> Iterator[RunRecord]:
    """Yield the record of each evaluation, in order; those that are stored already are not computed again.

    With ``force``, all are computed. An evaluation that is older than the record of its run counts as missing, and one
    that another process is computing is waited for. Raises ``StoreError`` if the results folder cannot be written to.
    """
    scoring = Scoring(planned)
    for run_id, corruption in planned.run_ids.items():
        record = None if force else planned.stored(run_id)
        if record is not None:
            yield record
            continue
        with claimed_after_waiting(planned.store, Emitter(run_id, listener)) as session:
            # The process that held the claim may have stored the record.
            record = None if force else planned.stored(run_id)
            if record is None:
                record, tables = scoring.score(run_id, corruption)
                session.confirm()
                planned.store.write(record, tables)
        yield record


class Scoring:
    """The model and the images of a plan, loaded when the first evaluation needs them."""

    def __init__(self, planned: PlannedEvaluation) -> None:
        self.planned = planned

    @cached_property
    def compute(self) -> ComputeContext:
        """The device with the kernels of a run, and the precision of this one."""
        device = resolve_device(self.planned.options.device)
        fix_kernels(device)
        return ComputeContext(device, resolve_precision(self.planned.parent.precision, device))

    @cached_property
    def exported(self) -> Exported:
        """The model of the run on the device, with its preprocessing."""
        exported = load_exported(self.planned.weights, checkpoint=self.planned.options.checkpoint)
        exported.model.to(self.compute.device)
        cast_frozen_weights(exported.model, self.compute)
        return exported

    @cached_property
    def split(self) -> Split:
        """The images, decoded for the model."""
        return self.planned.images.load(self.exported.preprocessing.image_size)

    def score(self, run_id: str, corruption: Corruption | None) -> tuple[RunRecord, RunTables]:
        """Return the record and the predictions of one evaluation."""
        compute = self.compute
        inputs = _inputs(self.split, self.exported, compute, corruption)
        started = time.perf_counter()
        evaluation = evaluate(self.exported.model, inputs, compute, capture="off")
        compute.wait()
        seconds = time.perf_counter() - started
        record = self._record(run_id, corruption, evaluation, inputs.labels, seconds)
        return record, RunTables(predictions=predictions_of(inputs.labels, evaluation))

    def _record(
        self, run_id: str, corruption: Corruption | None, evaluation: Evaluation, labels: Tensor, seconds: float
    ) -> RunRecord:
        images, parent = self.planned.images, self.planned.parent
        return dataclasses.replace(
            parent,
            run_id=run_id,
            kind=EVALUATED,
            parent_run=parent.run_id,
            corruption="" if corruption is None else corruption.name,
            severity=0 if corruption is None else corruption.severity,
            task=parent.task if images.same_data else images.task.name,
            source=images.task.source,
            data_fingerprint=images.copy.identity.fingerprint,
            image_format=images.copy.identity.image_format,
            n_test=len(labels),
            final_test_acc=evaluation.accuracy,
            final_test_mean_class_acc=mean_class_accuracy(labels, evaluation.predicted),
            chance_acc=majority_class_accuracy(labels),
            eval_seconds=seconds,
            eval_images_per_second=len(labels) / seconds,
            device=device_name(self.compute.device),
            precision=self.compute.precision,
            threads=torch.get_num_threads(),
            tf32=int(uses_tf32(self.compute.device)),
            **_NOT_TRAINED,
            **_made_after(parent),
        )


def _inputs(split: Split, exported: Exported, compute: ComputeContext, corruption: Corruption | None) -> ImageInputs:
    inputs = image_inputs(split, exported.preprocessing, compute.device, resident=False)
    if corruption is None:
        return inputs
    # Squares are corrupted, as the model would see them, on the host, so that pixels do not depend on the device.
    framed = split.framing is None or split.pixels.shape[1:3] == (split.framing.side, split.framing.side)
    frame = () if framed or split.framing is None else (HostFraming(split.framing),)
    return dataclasses.replace(inputs, steps=(*frame, corruption), on_host=True)


def _made_after(parent: RunRecord) -> dict[str, Any]:
    """Return what has made an evaluation: the software of this process, which also computes the method.

    The time is not before that of the run, which another clock may have given.
    """
    made, peft = made_here(), version("peft") if parent.peft_version else ""
    created = max(made["created"], parent.created)
    return {**made, "created": created, "method_package": package_of(parent.method), "peft_version": peft}


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
