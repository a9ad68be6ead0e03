"""Prepare a run: load its backbone and data, build its model and inputs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import PIL
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench import data
from shipbench.backbones import Preprocessing, origin_of, preprocessing_of, sha256_of
from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.backbones.state_dicts import weights_sha256
from shipbench.data.loading import DRAWING_RULES
from shipbench.data.share import with_share
from shipbench.data.types import TaskData
from shipbench.events import DISCARD, Emitter
from shipbench.hardware.device import resolve_device
from shipbench.hardware.memory import keep_freed_memory
from shipbench.hardware.precision import ComputeContext, resolve_precision
from shipbench.methods import BuildContext, Built, FrozenFeatures, as_frozen_features, releases_of
from shipbench.runs.backbone_cache import copy_of_backbone
from shipbench.runs.features import block_features, cached_features, frozen_features
from shipbench.runtime.files import file_sha256
from shipbench.runtime.version import VERSION, git_commit
from shipbench.spec import ResolvedSpec, RunSpec
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName
from shipbench.training.inputs import FeatureInputs, ImageInputs, Inputs, image_inputs


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A resolved spec with its run id, backbone, data and device."""

    resolved: ResolvedSpec
    run_id: str
    backbone: VisionTransformer
    preprocessing: Preprocessing
    task_data: TaskData
    compute: ComputeContext

    @property
    def task(self) -> Task:
        """The task, with the sizes and class names that its source has."""
        return self.task_data.task


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A model, the images that it is scored on, and the module that is trained, with its inputs.

    The trained module is the model itself, or its readout where the features never change.
    """

    built: Built
    images: ImageInputs
    trained: nn.Module
    train: Inputs
    evaluation: Inputs


def prepare(spec: RunSpec) -> Prepared:
    """Load the backbone and the images of a run; raise ``InputError`` for a spec that does not fit them."""
    resolved = spec.resolved
    device = resolve_device(spec.device)
    precision = resolve_precision(spec.precision, device)
    keep_freed_memory(device)
    recipe = resolved.recipe
    backbone = copy_of_backbone(resolved.backbone, spec.checkpoint, recipe.image_size, recipe.drop_path)
    preprocessing = _preprocessing(backbone, resolved)
    task_data = data.load(resolved.task, image_size=preprocessing.image_size, root=spec.data, splits=spec.splits)
    task_data = with_share(task_data, spec.splits[0], recipe.data_share)
    run_id = resolved.run_id(
        data_fingerprint=task_data.fingerprint,
        backbone_sha256=sha256_of(backbone),
        precision=precision,
        normalisation=origin_of(backbone).normalisation(resolved.recipe.mean, resolved.recipe.std),
    )
    return Prepared(resolved, run_id, backbone, preprocessing, task_data, ComputeContext(device, precision))


def _preprocessing(backbone: VisionTransformer, resolved: ResolvedSpec) -> Preprocessing:
    native, recipe = preprocessing_of(backbone), resolved.recipe
    return Preprocessing(native.image_size, recipe.mean or native.mean, recipe.std or native.std)


def assemble(prepared: Prepared, emitter: Emitter = DISCARD, facts: Mapping[str, Any] | None = None) -> Assembled:
    """Build a run's model and its inputs; ``facts`` of an earlier build (``Built.facts``) are reused."""
    train, evaluation = load_inputs(prepared)
    built = build(prepared, train, emitter, facts or {})
    cast_frozen_weights(built.model, prepared.compute)
    return Assembled(built, evaluation, *_trainable(built.model, train, evaluation, prepared, emitter))


def load_inputs(prepared: Prepared) -> tuple[ImageInputs, ImageInputs]:
    """Return the images to train on, resident on the device if they fit, and those to evaluate on, streamed."""
    splits, preprocessing, device = prepared.resolved.spec.splits, prepared.preprocessing, prepared.compute.device
    train, evaluation = (prepared.task_data[split] for split in splits)
    augment = prepared.task_data.task.augment
    return (
        image_inputs(train, preprocessing, device, resident=True, augment=augment),
        image_inputs(evaluation, preprocessing, device, resident=False),
    )


def build(prepared: Prepared, train: ImageInputs, emitter: Emitter, facts: Mapping[str, Any]) -> Built:
    """Build a run's model on its device; ``facts`` as in ``assemble``."""
    resolved = prepared.resolved
    backbone = prepared.backbone.to(prepared.compute.device)

    def features(kind: str) -> Tensor:
        key = ("blocks", kind, *_feature_key(prepared, resolved.spec.splits[0]))
        return cached_features(key, lambda: block_features(backbone, train, kind, emitter=emitter), emitter)

    def cached(name: tuple[object, ...], compute: Callable[[], Tensor]) -> Tensor:
        # Methods of several packages may choose the same name.
        key = ("derived", resolved.method.name, *name, *_feature_key(prepared, resolved.spec.splits[0]))
        return cached_features(key, compute, emitter)

    classes, settings = prepared.task.num_classes, resolved.settings
    context = BuildContext(backbone, classes, settings, features, emitter.note, facts, cached)
    built = resolved.method.build(context)
    built.model.to(prepared.compute.device)
    return built


def _feature_key(prepared: Prepared, split: SplitName) -> tuple[object, ...]:
    """Return what decides features: images, backbone, and the device and the code that compute them."""
    images = (prepared.task_data.content(split), prepared.task.resize, prepared.task.augment)
    # Models of other names compute other features from the same weights: CLIP's with either of two activations.
    backbone = (prepared.resolved.backbone, sha256_of(prepared.backbone), prepared.preprocessing)
    code = (VERSION, git_commit(), releases_of(prepared.resolved.method.name))
    # Pillow and the rules decide the pixels, as in the image cache, and timm the forward pass.
    packages = (torch.__version__, timm.__version__, PIL.__version__, DRAWING_RULES)
    return (*images, *backbone, prepared.compute.device.type, *code, *packages)


def _readout_key(model_class: type, tensors: str, prepared: Prepared) -> tuple[object, ...] | None:
    """Return what else decides the features of a model's readout, or None if its code is in no file.

    That is the file, the method with its settings, the precision, and the hash of the model's own ``tensors``.
    """
    try:
        code = file_sha256(Path(inspect.getfile(model_class)))
    except (OSError, TypeError):
        return None
    method, settings = prepared.resolved.method.name, dataclasses.asdict(prepared.resolved.settings)
    return "readout", method, code, settings, tensors, prepared.compute.precision


def _own_tensors(model: nn.Module, prepared: Prepared) -> str:
    """Return the hash of a model's tensors beside readout and backbone, empty without any."""
    shared = {value.data_ptr() for value in prepared.backbone.state_dict().values()}
    own = {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith("readout.") and value.data_ptr() not in shared
    }
    return weights_sha256(own) if own else ""


def _trainable(
    model: nn.Module, train: ImageInputs, evaluation: ImageInputs, prepared: Prepared, emitter: Emitter
) -> tuple[nn.Module, Inputs, Inputs]:
    """Return the module to train and its inputs: the model on images, or its readout on features that never change.

    Features of augmented images would change in every epoch.
    """
    frozen = None if train.augmented else as_frozen_features(model)
    if frozen is None:
        return model, train, evaluation
    kept_under = _readout_key(type(model), _own_tensors(model, prepared), prepared)
    model.eval()
    inputs = []
    for split, images in zip(prepared.resolved.spec.splits, (train, evaluation), strict=True):
        compute = partial(_features, frozen, images, prepared, emitter)
        if kept_under is None:
            features = compute()
        else:
            features = cached_features((*kept_under, *_feature_key(prepared, split)), compute, emitter)
        inputs.append(FeatureInputs(features.to(prepared.compute.device), images.labels))
    return frozen.readout, inputs[0], inputs[1]


def _features(model: FrozenFeatures, images: ImageInputs, prepared: Prepared, emitter: Emitter) -> Tensor:
    with prepared.compute.autocast():
        return frozen_features(model, images, emitter)
