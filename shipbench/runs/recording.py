"""Describe a run as a record, and store it with its tables and weights."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shipbench.backbones import Origin, origin_of
from shipbench.hardware.determinism import uses_tf32
from shipbench.hardware.device import device_name
from shipbench.hardware.flops import count_flops
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import Built, Learned, package_of
from shipbench.recipe import Recipe
from shipbench.record import NAN, RunRecord, as_text, time_now
from shipbench.results.store import EXPORT_FORMAT, RunTables, Store
from shipbench.runs.export import sealed_metadata
from shipbench.runs.preparation import Assembled, Prepared
from shipbench.runtime.version import VERSION, git_commit
from shipbench.settings import plain
from shipbench.spec import RunSpec
from shipbench.tasks import Task
from shipbench.training.history import Evaluation, Fit
from shipbench.training.inputs import Inputs
from shipbench.training.snapshot import trains_whole_backbone, weights_to_keep

# The facts of SHIP's model that no later build needs.
_AFFINITY = ("affinity", "affinity_std")


@dataclass(frozen=True)
class Trained:
    """A trained run; ``peak_memory`` in bytes is that of all ``stacked_runs`` that were trained together."""

    prepared: Prepared
    assembled: Assembled
    fit: Fit
    peak_memory: int
    stacked_runs: int = 1


def _inference_flops(model: nn.Module, inputs: Inputs, compute: ComputeContext) -> float:
    image = inputs.batch(torch.arange(1))
    model.eval()
    with compute.autocast():
        return count_flops(lambda: model(image))


def majority_class_accuracy(labels: Tensor) -> float:
    """Return the majority-class accuracy, which a collapsed run does not exceed."""
    return float(labels.bincount().max().item() / len(labels))


def mean_class_accuracy(labels: Tensor, predicted: Tensor) -> float:
    """Return the mean over the classes that have images of the share of their images classified correctly."""
    labels, predicted = labels.cpu(), predicted.cpu()
    sizes = labels.bincount()
    right = labels[labels == predicted].bincount(minlength=len(sizes))
    # In float64 throughout: a tuning compares such means, and rounding in float32 would break ties.
    return float((right[sizes > 0].double() / sizes[sizes > 0]).mean().item())


def predictions_of(labels: Tensor, evaluation: Evaluation) -> dict[str, Any]:
    """Return the columns of the predictions: a row per image."""
    return {
        "index": list(range(len(labels))),
        "label": labels.cpu().numpy(),
        "predicted": evaluation.predicted.numpy(),
        "confidence": evaluation.confidence.numpy(),
    }


def describe(trained: Trained) -> RunRecord:
    """Return the record of a finished run."""
    prepared, assembled, fit = trained.prepared, trained.assembled, trained.fit
    built, n_test = assembled.built, len(assembled.images)
    counts = {name: p.numel() for name, p in built.model.named_parameters() if p.requires_grad}
    head = sum(count for name, count in counts.items() if name.startswith(("head.", "readout.head.")))
    hierarchy: dict[str, Any] = {f: json.dumps(built.facts[f]) for f in ("levels", *_AFFINITY) if f in built.facts}
    epochs = fit.epochs
    images = sum(report.images for report in epochs)
    train_seconds = sum(report.train_seconds for report in epochs)
    eval_seconds = sum(report.eval_seconds for report in epochs)
    return dataclasses.replace(
        blank_record(prepared),
        status="done",
        threads=torch.get_num_threads(),
        tf32=int(uses_tf32(prepared.compute.device)),
        micro_batch=fit.micro_batch,
        captured=int(fit.captured),
        n_train=len(assembled.train),
        n_test=n_test,
        trainable_params=sum(counts.values()),
        trainable_params_without_head=sum(counts.values()) - head,
        total_params=sum(p.numel() for p in built.model.parameters()),
        flops_per_image=_inference_flops(built.model, assembled.images, prepared.compute),
        chance_acc=majority_class_accuracy(assembled.images.labels),
        train_loss=epochs[-1].train_loss,
        train_seconds=train_seconds,
        eval_seconds=eval_seconds,
        train_images_per_second=images / train_seconds,
        eval_images_per_second=len(fit.evaluated) * n_test / eval_seconds,
        stacked_runs=trained.stacked_runs,
        peak_memory_bytes=trained.peak_memory,
        learned=_learned(built.model),
        peft_version=built.facts.get("peft_version", ""),
        **hierarchy,
        **_scores(fit, assembled.images.labels, prepared.resolved.spec.protocol),
    )


@torch.no_grad()
def _learned(model: nn.Module) -> str:
    learned = model.learned() if isinstance(model, Learned) else {}
    numbers = {name: float(plain(number)) for name, number in learned.items()}
    return json.dumps(numbers) if numbers else ""


def _scores(fit: Fit, labels: Tensor, protocol: str) -> dict[str, Any]:
    """Return the accuracies on the evaluation split, in the columns of that split."""
    final = fit.evaluated[-1][1]
    mean_class_acc = mean_class_accuracy(labels, final.predicted)
    if protocol != "final":
        return {"val_acc": final.accuracy, "val_mean_class_acc": mean_class_acc}
    best_epoch, best = max(fit.evaluated, key=lambda pair: pair[1].accuracy)
    return {
        "final_test_acc": final.accuracy,
        "final_test_mean_class_acc": mean_class_acc,
        "best_test_acc": best.accuracy,
        "best_test_epoch": best_epoch,
    }


def blank_record(prepared: Prepared, error: str = "") -> RunRecord:
    """Return the record of a prepared run without results: its identity and where it ran, with status "failed"."""
    return _without_results(
        prepared.resolved.spec,
        prepared.run_id,
        prepared.task,
        origin_of(prepared.backbone),
        data_fingerprint=prepared.task_data.fingerprint,
        image_format=prepared.task_data.image_format,
        precision=prepared.compute.precision,
        device=device_name(prepared.compute.device),
        error=error,
    )


def unprepared_record(spec: RunSpec, run_id: str, origin: Origin | None, **known: str) -> RunRecord:
    """Return the record of a run that could not be prepared; ``known`` are columns that its plan knows."""
    # Which GPU cuda:3 would have been is unknown, and its number says nothing about a record.
    device = spec.device.partition(":")[0]
    return _without_results(spec, run_id, spec.resolved.task, origin, image_format="", device=device, **known)


def _without_results(spec: RunSpec, run_id: str, task: Task, origin: Origin | None, **columns: Any) -> RunRecord:
    resolved = spec.resolved
    settings = {**resolved.config, **(_images(origin, resolved.recipe) if origin else {})}
    return RunRecord(
        run_id=run_id,
        status="failed",
        method=resolved.method.name,
        seed=spec.seed,
        recipe=spec.recipe,
        protocol=spec.protocol,
        settings=settings,
        switches=resolved.switches,
        overrides=resolved.overrides,
        backbone=resolved.backbone,
        checkpoint=as_text(Path(spec.checkpoint).name) if spec.checkpoint else "",
        **_weights(origin, resolved.recipe),
        **_task(task),
        image_size=settings["image_size"] or 0,
        method_package=package_of(resolved.method.name),
        **columns,
        **made_here(),
    )


def made_here() -> dict[str, Any]:
    """Return the columns on when, where and with which software a record is made."""
    return {
        "created": time_now(),
        "host": platform.node(),
        "python_version": platform.python_version(),
        "torch_version": version("torch"),
        "timm_version": version("timm"),
        "numpy_version": version("numpy"),
        "pillow_version": version("pillow"),
        "sklearn_version": version("scikit-learn"),
        "shipbench_version": VERSION,
        "git_commit": git_commit(),
    }


def _task(task: Task) -> dict[str, Any]:
    """Return the columns on the task."""
    return {
        "task": task.name,
        "group": task.group,
        "suite": task.suite,
        "num_classes": task.num_classes,
        "source": task.source,
        "suite_tasks": "" if task.catalogued else json.dumps(task.suite_tasks),
        "class_names": json.dumps(task.class_names) if task.class_names else "",
        "draw": task.drawn,
        "resize": task.resize,
        "augment": task.augment,
        "shots": task.shots,
        "headline_metric": task.metric,
    }


def _images(origin: Origin, recipe: Recipe) -> dict[str, Any]:
    """Return the settings of the images as a run prepares them."""
    return {
        "image_size": recipe.image_size or origin.image_size or None,
        "mean": recipe.mean or origin.mean,
        "std": recipe.std or origin.std,
    }


def _weights(origin: Origin | None, recipe: Recipe) -> dict[str, Any]:
    """Return the columns on weights; only the required one if their origin is unknown."""
    if origin is None:
        return {"backbone_sha256": ""}
    return {
        "backbone_sha256": origin.sha256,
        "checkpoint_part": origin.part,
        "position_grid": origin.grid,
        "normalisation": origin.whose(recipe.mean, recipe.std),
    }


def store_run(store: Store, record: RunRecord, trained: Trained) -> None:
    """Store the weights, tables and row of a finished run, in this order; remove its checkpoint.

    What an earlier execution has left is removed: features of other weights, and weights that are not replaced.
    """
    store.remove("features", record.run_id)
    prepared, built, fit = trained.prepared, trained.assembled.built, trained.fit
    predictions = predictions_of(trained.assembled.images.labels, fit.evaluated[-1][1])
    whole = trains_whole_backbone(built.model)
    spec = prepared.resolved.spec
    # The trials of a tuning are compared and not used again, so they keep no whole model.
    if not whole or (spec.keep_weights == "full" and spec.protocol == "final"):
        tensors = {name: value.cpu().contiguous() for name, value in weights_to_keep(built.model).items()}
        metadata = sealed_metadata(_weights_metadata(record, prepared, built, whole), tensors)
        store.write_weights(record.run_id, tensors, metadata)
    else:
        store.remove("weights", record.run_id)
    split = "test" if record.protocol == "final" else "val"
    store.write(record, RunTables(_history(fit, split), predictions))
    store.remove("checkpoints", record.run_id)


def _weights_metadata(record: RunRecord, prepared: Prepared, built: Built, whole: bool) -> Mapping[str, str]:
    """Return the metadata from which ``shipbench.runs.export`` rebuilds the model."""
    facts = {name: value for name, value in built.facts.items() if name not in _AFFINITY}
    return {
        "format": EXPORT_FORMAT,
        "weights": "full" if whole else "trained",
        "run_id": record.run_id,
        "method": record.method,
        "settings": json.dumps(dataclasses.asdict(prepared.resolved.settings)),
        "facts": json.dumps(facts),
        "task": record.task,
        "num_classes": str(record.num_classes),
        "class_names": record.class_names,
        "resize": prepared.task.resize,
        "backbone": record.backbone,
        "backbone_sha256": record.backbone_sha256,
        "checkpoint": record.checkpoint,
        "preprocessing": json.dumps(dataclasses.asdict(prepared.preprocessing)),
    }


def _history(fit: Fit, split: str) -> Mapping[str, list[Any]]:
    """Return the columns of the history: a row per epoch for training, and one per evaluation."""
    rows = []
    for report in fit.epochs:
        rows.append((report.epoch, "train", report.train_loss, NAN, report.learning_rate))
        if report.evaluation is not None:
            scores = report.evaluation
            rows.append((report.epoch, split, scores.loss, scores.accuracy, report.learning_rate))
    names = ("epoch", "split", "loss", "accuracy", "learning_rate")
    return dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True))
