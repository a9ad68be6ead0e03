"""Spec to model and inputs: everything that a run needs before it can be trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench import data
from shipbench.backbones import Preprocessing, load_backbone, preprocessing_of, sha256_of
from shipbench.data.types import TaskData
from shipbench.hardware.device import resolve_device
from shipbench.hardware.memory import keep_freed_memory
from shipbench.hardware.precision import ComputeContext, resolve_precision
from shipbench.methods import BuildContext, Built, FrozenFeatures
from shipbench.runs.features import block_features, cached_features, frozen_features
from shipbench.spec import ResolvedSpec, RunSpec
from shipbench.training.inputs import FeatureInputs, ImageInputs, Inputs, image_inputs

Say: TypeAlias = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A resolved spec with what it needs in hand."""

    resolved: ResolvedSpec
    run_id: str
    backbone: VisionTransformer
    preprocessing: Preprocessing
    task_data: TaskData
    compute: ComputeContext


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A model, the images that it is scored on, and what is trained on which inputs: itself, or its readout."""

    built: Built
    images: ImageInputs
    trained: nn.Module
    train: Inputs
    evaluation: Inputs


def silent(_: object) -> None:
    """Say nothing."""


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
    return Prepared(resolved, run_id, backbone, preprocessing, task_data, ComputeContext(device, precision))


def _preprocessing(backbone: VisionTransformer, resolved: ResolvedSpec) -> Preprocessing:
    own, recipe = preprocessing_of(backbone), resolved.recipe
    return Preprocessing(own.image_size, recipe.mean or own.mean, recipe.std or own.std)


def assemble(prepared: Prepared, say: Say = silent, known: Mapping[str, Any] | None = None) -> Assembled:
    """Build a run's model and its inputs; ``known`` facts of an earlier build are not found out again."""
    train, evaluation = load_inputs(prepared)
    built = build(prepared, train, say, known or {})
    return Assembled(built, evaluation, *_trainable(built.model, train, evaluation, prepared, say))


def load_inputs(prepared: Prepared) -> tuple[ImageInputs, ImageInputs]:
    """Return the images to train on, which stay on the device, and those to evaluate on."""
    train, evaluation = prepared.resolved.splits
    return _inputs(prepared, train, resident=True), _inputs(prepared, evaluation, resident=False)


def _inputs(prepared: Prepared, split: Any, *, resident: bool) -> ImageInputs:
    device = prepared.compute.device
    return image_inputs(prepared.task_data[split], prepared.preprocessing, device, resident=resident)


def build(prepared: Prepared, train: ImageInputs, say: Say, known: Mapping[str, Any]) -> Built:
    """Build a run's model on its device; ``known`` as in ``assemble``."""
    resolved = prepared.resolved
    backbone = prepared.backbone.to(prepared.compute.device)

    def features(kind: str) -> Tensor:
        key = ("blocks", kind, resolved.splits[0], *_feature_key(prepared))
        return cached_features(key, lambda: block_features(backbone, train, kind, say=say))

    context = BuildContext(backbone, resolved.task.num_classes, resolved.settings, features, say, known)
    built = resolved.method.build(context)
    built.model.to(prepared.compute.device)
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
        key = ("readout", method, split, prepared.compute.precision, *_feature_key(prepared))
        features = cached_features(key, partial(_features, model, images, prepared, say))
        ready.append(FeatureInputs(features.to(prepared.compute.device), images.labels))
    return readout, ready[0], ready[1]


def _features(model: FrozenFeatures, images: ImageInputs, prepared: Prepared, say: Say) -> Tensor:
    with prepared.compute.autocast():
        return frozen_features(model, images, say=say)
