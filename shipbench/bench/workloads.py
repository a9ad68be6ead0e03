"""Whole trainings of every method on random images, as a run carries them out, for the parts of ``bench --all``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from shipbench.backbones import input_size_of
from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.bench.candidates import candidates, load_bare_backbone, model_of
from shipbench.bench.options import PartOptions
from shipbench.bench.timing import timed
from shipbench.errors import ShipbenchError, one_line
from shipbench.events import Emitter, Event, Note
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import as_frozen_features, get_method
from shipbench.methods.registry import MAIN_METHODS
from shipbench.recipe import Capture, Recipe
from shipbench.training.graphs import can_record
from shipbench.training.history import Fit
from shipbench.training.inputs import FeatureInputs, ImageInputs, Inputs
from shipbench.training.loop import Hooks, evaluate, fit
from shipbench.training.micro_batches import inference_batch


def _refuse_notes(event: Event) -> None:
    if isinstance(event, Note):
        raise ShipbenchError(event.text)


STRICT = Emitter(listener=_refuse_notes)
"""Ends a training with an error where a run would continue with a note: steps are not recorded, or batches divided."""


@dataclass(frozen=True)
class Images:
    """Random images to train on, resident on the device, and to evaluate on, streamed to it."""

    train: ImageInputs
    evaluation: ImageInputs


@dataclass(frozen=True)
class Workload:
    """A model with its training inputs and its evaluation images.

    ``trained`` is the module that a run trains: the model, or its readout where the features never change;
    ``evaluation`` are the inputs on which that module is evaluated after every epoch that the recipe names.
    """

    model: nn.Module
    trained: nn.Module
    train: Inputs
    evaluation: Inputs
    images: ImageInputs
    compute: ComputeContext
    recipe: Recipe

    def fit(self, hooks: Hooks | None = None) -> Fit:
        """Train for the recipe's epochs, with the evaluations that it asks for; notes are errors (``STRICT``)."""
        strict = replace(hooks or Hooks(), emitter=STRICT)
        return fit(self.trained, self.train, self.evaluation, self.recipe, self.compute, 0, strict)

    def evaluation_rate(self, fit: Fit) -> float:
        """Return the images/s of the last evaluation in ``fit``; of features, those of computing them from images."""
        if self.trained is self.model:
            return len(self.evaluation) / fit.epochs[-1].eval_seconds
        for _ in range(2):
            # A run computes features without recording.
            work = partial(evaluate, self.model, self.images, self.compute, capture="off")
            seconds, _ = timed(work, self.compute)
        return len(self.images) / seconds


@dataclass(frozen=True)
class Case:
    """A method in one precision, over a backbone that its models copy."""

    method: str
    backbone: VisionTransformer
    images: Images
    options: PartOptions
    compute: ComputeContext

    @property
    def identity(self) -> dict[str, Any]:
        """The columns that name the case in a row."""
        return {"method": self.method, "precision": self.compute.precision}

    def workload(self, epochs: int, capture: Capture = "auto", *, evaluates: bool = False) -> Workload:
        """Return the workload that trains for ``epochs``; models and random numbers are the same on every call.

        It ``evaluates`` on all evaluation images after the first epoch, which sets up and records, and after the last;
        otherwise once, at the end, on the training inputs.
        """
        every = max(1, epochs - 1) if evaluates else 0
        recipe = replace(self.recipe, epochs=epochs, capture=capture, eval_every=every)
        model, images = self.model(), self.images
        frozen = as_frozen_features(model)
        if frozen is not None:
            features = torch.randn(len(images.train), self.backbone.embed_dim, device=self.compute.device)
            train = FeatureInputs(features, images.train.labels)
            return Workload(model, frozen.readout, train, train, images.evaluation, self.compute, recipe)
        evaluation = images.evaluation if evaluates else images.train
        return Workload(model, model, images.train, evaluation, images.evaluation, self.compute, recipe)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the options' batch and stochastic depth."""
        options = self.options.model
        return Recipe(batch_size=options.batch_size, warmup_epochs=0, drop_path=options.drop_path)

    def both_ways(self, measure: Callable[[Capture], dict[str, Any]], **identity: Any) -> Iterator[dict[str, Any]]:
        """Yield a row with recorded steps and one without, or one row if nothing is recorded here.

        ``measure`` returns figures with ``captured``, and ``identity`` names the rows besides method and precision.
        """
        captures: tuple[Capture, Capture] = ("auto", "off")
        for capture in captures:
            row = self.identity | identity | with_errors(partial(measure, capture))
            yield row
            failed = "error" in row and can_record(self.compute.device)
            if not (row.get("captured") or failed):
                return

    def model(self, backbone: VisionTransformer | None = None) -> nn.Module:
        """Return the model on ``backbone``, or on a copy of the case's; its weights are the same on every call."""
        torch.manual_seed(0)
        candidate = candidates([get_method(self.method)], self.options.model, self.options.settings)[1]
        trunk = copy.deepcopy(self.backbone) if backbone is None else backbone
        model = model_of(candidate, self.options.model, trunk).to(self.compute.device)
        cast_frozen_weights(model, self.compute)
        return model


def cases(options: PartOptions, methods: tuple[str, ...] | None = None) -> Iterator[Case]:
    """Yield every method, or each of ``methods``, in every precision of ``options``; what matters most comes first.

    These are the main methods, each in every precision; then come the others, all of them in one precision before the
    next.
    """
    computes = [ComputeContext(options.device, precision) for precision in options.precisions]
    backbone = load_bare_backbone(options.model, computes[0])
    images = _images(input_size_of(backbone)[0], options)
    names = options.methods if methods is None else methods
    others = [name for name in names if name not in MAIN_METHODS]
    for method in (name for name in names if name in MAIN_METHODS):
        yield from (Case(method, backbone, images, options, compute) for compute in computes)
    for compute, method in product(computes, others):
        yield Case(method, backbone, images, options, compute)


def _images(size: int, options: PartOptions) -> Images:
    count = options.steps * options.model.batch_size
    return Images(
        random_images(count, size, options, resident=True),
        random_images(_evaluation_images(options), size, options, resident=False),
    )


def _evaluation_images(options: PartOptions) -> int:
    """Return the size of an evaluation: three full batches on a GPU, of which the last can be a replay."""
    return options.end_to_end[1] if options.device.type == "cpu" else 3 * inference_batch(options.device)


def random_images(count: int, size: int, options: PartOptions, *, resident: bool) -> ImageInputs:
    """Return ``count`` random images of ``size`` pixels, on the device if ``resident``; the same on every call."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(256, (count, size, size, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(options.model.num_classes, (count,), generator=generator).to(options.device)
    mean, std = (torch.full((1, 3, 1, 1), 0.5, device=options.device) for _ in range(2))
    return ImageInputs(images.to(options.device) if resident else images, labels, mean, std)


def with_errors(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of ``measure``, or the error that it raised, in one line, as ``error``.

    A method that fails on a device does not end the measurements of the others.
    """
    try:
        return measure()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {one_line(error)}"}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
