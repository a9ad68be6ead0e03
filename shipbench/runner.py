"""Spec to record: the one path that every run takes."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import shipbench
from shipbench import data
from shipbench.backbones import Preprocessing, load_backbone, preprocessing_of, sha256_of
from shipbench.checkpoints import Checkpoint
from shipbench.data.types import TaskData
from shipbench.device import PeakMemory, keep_freed_memory, resolve_device, resolve_precision, seed_everything
from shipbench.features import block_features, cached_features, frozen_features
from shipbench.flops import count_flops
from shipbench.methods import BuildContext, Built, FrozenFeatures
from shipbench.provenance import git_commit
from shipbench.spec import ResolvedSpec, RunSpec
from shipbench.store import EXPORT_FORMAT, RunRecord, RunTables, Store
from shipbench.training.inputs import FeatureInputs, ImageInputs, Inputs, image_inputs
from shipbench.training.loop import Arithmetic, EpochReport, Fit, Hooks, fit

Say = Callable[[str], None]
OnEpoch = Callable[[EpochReport], None]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A resolved spec with what it needs in hand."""

    resolved: ResolvedSpec
    run_id: str
    backbone: VisionTransformer
    preprocessing: Preprocessing
    task_data: TaskData
    arithmetic: Arithmetic


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A model, the images that it is scored on, and what is trained on which inputs: itself, or its readout."""

    built: Built
    images: ImageInputs
    trained: nn.Module
    train: Inputs
    evaluation: Inputs


def _silent(_: object) -> None:
    return None


def _nothing() -> None:
    return None


def run(
    spec: RunSpec,
    *,
    results: Path | str | None = None,
    force: bool = False,
    say: Say = _silent,
    on_epoch: OnEpoch = _silent,
) -> RunRecord:
    """Carry out one run and return its record.

    With a ``results`` folder the record is stored there, and a run whose record is there already is not repeated
    unless ``force``. Raises ``InputError`` for a spec that cannot be carried out, ``ShipbenchError`` if training fails.
    """
    prepared = prepare(spec)
    store = None if results is None else Store(results)
    if store is not None and not force:
        record = store.read(prepared.run_id)
        if record is not None and record.done:
            return record
    return carry_out(prepared, store, say, on_epoch, fresh=force)


def prepare(spec: RunSpec) -> Prepared:
    """Load what a run needs: backbone, images and device; raises ``InputError`` for whatever does not fit."""
    resolved = spec.resolved
    device = resolve_device(spec.device)
    precision = resolve_precision(spec.precision, device)
    keep_freed_memory(device)
    backbone = load_backbone(
        resolved.backbone,
        checkpoint=spec.checkpoint,
        image_size=resolved.recipe.image_size,
        drop_path=resolved.recipe.drop_path,
    )
    preprocessing = _preprocessing(backbone, resolved)
    task_data = data.load(resolved.task, image_size=preprocessing.image_size, root=spec.data, splits=resolved.splits)
    run_id = resolved.run_id(
        data_fingerprint=task_data.fingerprint, backbone_sha256=sha256_of(backbone), precision=precision
    )
    return Prepared(resolved, run_id, backbone, preprocessing, task_data, Arithmetic(device, precision))


def _preprocessing(backbone: VisionTransformer, resolved: ResolvedSpec) -> Preprocessing:
    own, recipe = preprocessing_of(backbone), resolved.recipe
    return Preprocessing(own.image_size, recipe.mean or own.mean, recipe.std or own.std)


def carry_out(
    prepared: Prepared,
    store: Store | None,
    say: Say = _silent,
    on_epoch: OnEpoch = _silent,
    *,
    fresh: bool = False,
    check: Callable[[], None] = _nothing,
) -> RunRecord:
    """Train, evaluate and store one run.

    With a ``store``, the run leaves a checkpoint every few epochs and goes on from one that an earlier process left,
    unless it is to be ``fresh``. ``check`` is called before every step and before anything is stored; what it raises
    stops the run.
    """
    resolved, arithmetic = prepared.resolved, prepared.arithmetic
    checkpoint = None if store is None else checkpoint_of(prepared, store, say)
    progress = None if checkpoint is None or fresh else checkpoint.read()
    seed_everything(resolved.spec.seed, arithmetic.device)
    memory = PeakMemory(arithmetic.device)
    ready = assemble(prepared, say, known=progress.facts if progress else {})
    hooks = Hooks(say=say, start=progress.snapshot if progress else None, check=check)
    if checkpoint is not None:
        hooks = dataclasses.replace(hooks, keep=partial(checkpoint.offer, facts=ready.built.facts))
    seed = resolved.spec.seed
    done = fit(ready.trained, ready.train, ready.evaluation, resolved.recipe, arithmetic, seed, on_epoch, hooks)
    record = describe(prepared, ready, done, memory.bytes())
    if store is not None:
        check()
        store_run(store, record, prepared, ready, done)
    return record


def checkpoint_of(prepared: Prepared, store: Store, say: Say) -> Checkpoint:
    """Return the checkpoint of a run, whether or not there is one yet."""
    path = store.path("checkpoints", prepared.run_id)
    return Checkpoint(path, prepared.run_id, prepared.arithmetic.device, say)


def assemble(prepared: Prepared, say: Say = _silent, known: Mapping[str, Any] | None = None) -> Assembled:
    """Build a run's model and its inputs; ``known`` facts of an earlier build are not found out again."""
    train, evaluation = load_inputs(prepared)
    built = build(prepared, train, say, known or {})
    return Assembled(built, evaluation, *_trainable(built.model, train, evaluation, prepared, say))


def load_inputs(prepared: Prepared) -> tuple[ImageInputs, ImageInputs]:
    """Return the images to train on, which stay on the device, and those to evaluate on."""
    train, evaluation = prepared.resolved.splits
    return _inputs(prepared, train, resident=True), _inputs(prepared, evaluation, resident=False)


def _inputs(prepared: Prepared, split: Any, *, resident: bool) -> ImageInputs:
    device = prepared.arithmetic.device
    return image_inputs(prepared.task_data[split], prepared.preprocessing, device, resident=resident)


def build(prepared: Prepared, train: ImageInputs, say: Say, known: Mapping[str, Any]) -> Built:
    """Build a run's model on its device; ``known`` as in ``assemble``."""
    resolved = prepared.resolved
    backbone = prepared.backbone.to(prepared.arithmetic.device)

    def features(kind: str) -> Tensor:
        key = ("blocks", kind, resolved.splits[0], *_feature_key(prepared))
        return cached_features(key, lambda: block_features(backbone, train, kind, say=say))

    context = BuildContext(backbone, resolved.task.num_classes, resolved.settings, features, say, known)
    built = resolved.method.build(context)
    built.model.to(prepared.arithmetic.device)
    return built


def _feature_key(prepared: Prepared) -> tuple[object, ...]:
    return (prepared.task_data.fingerprint, sha256_of(prepared.backbone), prepared.preprocessing)


def _trainable(
    model: nn.Module, train: ImageInputs, evaluation: ImageInputs, prepared: Prepared, say: Say
) -> tuple[nn.Module, Inputs, Inputs]:
    """Return what is trained and its inputs: the model on images, or its readout on features that never change."""
    if not isinstance(model, FrozenFeatures):
        return model, train, evaluation
    readout, method = model.readout, prepared.resolved.method.name
    model.eval()
    inputs = [train, evaluation]
    ready = []
    for split, images in zip(prepared.resolved.splits, inputs, strict=True):
        key = ("readout", method, split, prepared.arithmetic.precision, *_feature_key(prepared))
        features = cached_features(key, partial(_features, model, images, prepared, say))
        ready.append(FeatureInputs(features.to(prepared.arithmetic.device), images.labels))
    return readout, ready[0], ready[1]


def _features(model: FrozenFeatures, images: ImageInputs, prepared: Prepared, say: Say) -> Tensor:
    with prepared.arithmetic.autocast():
        return frozen_features(model, images, say=say)


def _inference_flops(model: nn.Module, inputs: Inputs) -> float:
    image = inputs.batch(torch.arange(1))
    model.eval()
    return count_flops(lambda: model(image))


def _commonest_class(labels: Tensor) -> float:
    """Return the accuracy of always answering the commonest class: what a collapsed run does not exceed."""
    return float(labels.bincount().max().item() / len(labels))


def describe(prepared: Prepared, ready: Assembled, done: Fit, peak_memory: int) -> RunRecord:
    """Return the record of a finished run; ``peak_memory`` in bytes."""
    built, n_test = ready.built, len(ready.images)
    base = blank_record(prepared.resolved.spec, prepared.run_id, prepared)
    trained = {name: p.numel() for name, p in built.model.named_parameters() if p.requires_grad}
    head = sum(count for name, count in trained.items() if name.startswith(("head.", "readout.head.")))
    epochs = done.epochs
    images = sum(report.images for report in epochs)
    train_seconds = sum(report.train_seconds for report in epochs)
    eval_seconds = sum(report.eval_seconds for report in epochs)
    return dataclasses.replace(
        base,
        status="done",
        threads=torch.get_num_threads(),
        micro_batch=done.micro_batch,
        n_train=len(ready.train),
        n_test=n_test,
        trainable_params=sum(trained.values()),
        trainable_params_without_head=sum(trained.values()) - head,
        total_params=sum(p.numel() for p in built.model.parameters()),
        flops_per_image=_inference_flops(built.model, ready.images),
        chance_acc=_commonest_class(ready.images.labels),
        train_loss=epochs[-1].train_loss,
        train_seconds=train_seconds,
        eval_seconds=eval_seconds,
        train_images_per_second=images / train_seconds,
        eval_images_per_second=len(done.evaluated) * n_test / eval_seconds,
        peak_memory_bytes=peak_memory,
        levels=json.dumps(built.facts["levels"]) if "levels" in built.facts else "",
        affinity=json.dumps(built.facts["affinity"]) if "affinity" in built.facts else "",
        **_scores(done, prepared.resolved.spec.protocol),
    )


def _scores(done: Fit, protocol: str) -> dict[str, Any]:
    """Return the accuracies of the evaluation split under the names that belong to it."""
    final = done.evaluated[-1][1].accuracy
    if protocol != "final":
        return {"val_acc": final}
    best_epoch, best = max(done.evaluated, key=lambda pair: pair[1].accuracy)
    return {"final_test_acc": final, "best_test_acc": best.accuracy, "best_test_epoch": best_epoch}


def blank_record(spec: RunSpec, run_id: str, prepared: Prepared | None, **changes: Any) -> RunRecord:
    """Return the record of a run that has not produced anything: what it is and where it ran.

    What only a prepared run can know (data, weights, precision) stays empty if ``prepared`` is None.
    """
    resolved, task = spec.resolved, spec.resolved.task
    record = RunRecord(
        run_id=run_id,
        status="failed",
        method=resolved.method.name,
        task=task.name,
        group=task.group,
        suite=task.suite,
        seed=spec.seed,
        recipe=spec.recipe,
        protocol=spec.protocol,
        settings=resolved.config,
        switches=resolved.switches,
        overrides=resolved.overrides,
        backbone=resolved.backbone,
        backbone_sha256=sha256_of(prepared.backbone) if prepared else "",
        checkpoint=Path(spec.checkpoint).name if spec.checkpoint else "",
        image_size=prepared.preprocessing.image_size if prepared else resolved.recipe.image_size or 0,
        data_fingerprint=prepared.task_data.fingerprint if prepared else "",
        image_format=prepared.task_data.image_format if prepared else "",
        num_classes=task.num_classes,
        precision=prepared.arithmetic.precision if prepared else spec.precision,
        device=str(prepared.arithmetic.device) if prepared else spec.device,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        host=platform.node(),
        python_version=platform.python_version(),
        torch_version=version("torch"),
        timm_version=version("timm"),
        numpy_version=version("numpy"),
        sklearn_version=version("scikit-learn"),
        shipbench_version=shipbench.__version__,
        git_commit=git_commit(),
    )
    return dataclasses.replace(record, **changes)


def store_run(store: Store, record: RunRecord, prepared: Prepared, ready: Assembled, done: Fit) -> None:
    """Store a finished run: its weights, tables and row, and no checkpoint any more."""
    built, labels = ready.built, ready.images.labels
    last = done.evaluated[-1][1]
    predictions = {
        "index": list(range(len(labels))),
        "label": labels.cpu().numpy(),
        "predicted": last.predicted.numpy(),
        "confidence": last.confidence.numpy(),
    }
    if not _trains_backbone(built.model):
        state = built.model.state_dict()
        own = {k: v.detach().cpu().contiguous() for k, v in state.items() if not k.startswith("backbone.")}
        store.write_weights(record.run_id, own, _weights_metadata(record, prepared, built))
    split = "test" if record.protocol == "final" else "val"
    store.write(record, RunTables(_history(done, split), predictions))
    store.remove("checkpoints", record.run_id)


def _trains_backbone(model: nn.Module) -> bool:
    return any(p.requires_grad for name, p in model.named_parameters() if name.startswith("backbone."))


def _weights_metadata(record: RunRecord, prepared: Prepared, built: Built) -> Mapping[str, str]:
    """Return everything that is needed to use the trained part: see ``shipbench.export``."""
    facts = {name: value for name, value in built.facts.items() if name != "affinity"}
    return {
        "format": EXPORT_FORMAT,
        "run_id": record.run_id,
        "method": record.method,
        "settings": json.dumps(dataclasses.asdict(prepared.resolved.settings)),
        "facts": json.dumps(facts),
        "task": record.task,
        "num_classes": str(record.num_classes),
        "backbone": record.backbone,
        "backbone_sha256": record.backbone_sha256,
        "preprocessing": json.dumps(dataclasses.asdict(prepared.preprocessing)),
    }


def _history(done: Fit, split: str) -> Mapping[str, list[Any]]:
    """Return a row per epoch for training, and one per evaluation."""
    rows = []
    for report in done.epochs:
        rows.append((report.epoch, "train", report.train_loss, float("nan"), report.learning_rate))
        if report.evaluation is not None:
            scores = report.evaluation
            rows.append((report.epoch, split, scores.loss, scores.accuracy, report.learning_rate))
    names = ("epoch", "split", "loss", "accuracy", "learning_rate")
    return dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True))
