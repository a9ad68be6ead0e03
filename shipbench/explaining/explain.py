"""Explain a finished run from its stored weights: figures of what its blocks attend to, and its final features."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.backbones import load_backbone
from shipbench.data.types import Split
from shipbench.errors import InputError, check_all
from shipbench.explaining.choosing import choose_images
from shipbench.explaining.features import final_features
from shipbench.explaining.figures import (
    ExplainedImage,
    block_figure,
    explained_in_numbers,
    montage,
    prompt_figure,
    write_figure,
)
from shipbench.explaining.reading import BlockView, read_blocks
from shipbench.hardware.determinism import fix_kernels
from shipbench.hardware.device import resolve_device
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import get_method
from shipbench.record import RunRecord
from shipbench.results.store import Store
from shipbench.runs.evaluation_images import EvaluationImages, OpenedImages, open_images
from shipbench.runs.export import Exported, load_exported
from shipbench.runs.finished import checkpoint_of, resize_of, tested_record, weights_of
from shipbench.runs.photographs import Unreadable, read_photographs, refuse_all_unreadable, require_a_file
from shipbench.runtime.files import atomic_path
from shipbench.tasks import Task
from shipbench.training.inputs import image_inputs

_EACH = 4


@dataclass(frozen=True)
class ExplainOptions:
    """What to explain a run on, and where.

    ``images`` are files; without any, test images of the run are drawn with ``seed``. ``on`` is the task of these, for
    a run whose images are not in the catalogue; ``checkpoint`` holds the backbone's weights, if the run used a file.
    """

    images: tuple[Path, ...] = ()
    on: Task | None = None
    data: Path | None = None
    checkpoint: str | None = None
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Explanation:
    """A run with its model, the frozen backbone that it started from, and the images to explain.

    ``test_images`` are opened only if they are needed.
    """

    store: Store
    record: RunRecord
    weights: Path
    options: ExplainOptions
    test_images: EvaluationImages | None = None

    @cached_property
    def exported(self) -> Exported:
        """The model of the run."""
        exported = load_exported(self.weights, checkpoint=self.options.checkpoint)
        exported.model.to(self.compute.device)
        return exported

    @cached_property
    def compute(self) -> ComputeContext:
        """The device with the kernels of a run; explanations are computed in fp32."""
        device = resolve_device(self.options.device)
        fix_kernels(device)
        return ComputeContext(device, "fp32")

    @cached_property
    def frozen(self) -> VisionTransformer:
        """The backbone before the run."""
        size = self.exported.preprocessing.image_size
        backbone = load_backbone(self.record.backbone, checkpoint=self.options.checkpoint, image_size=size)
        return backbone.to(self.compute.device).eval()

    @cached_property
    def split(self) -> Split:
        """The decoded test images."""
        assert self.test_images is not None
        return self.test_images.load(self.exported.preprocessing.image_size)

    @property
    def title(self) -> str:
        """The printed name of the method."""
        return get_method(self.record.method).title

    @property
    def levels(self) -> list[int]:
        """The first block of each level; empty for methods without levels."""
        return json.loads(self.record.levels or "[]")

    def read(self, pixels: NDArray[np.uint8]) -> tuple[list[BlockView], list[BlockView], Tensor]:
        """Return the blocks of the frozen backbone and of the run for one image, and class probabilities."""
        image = self._normalised(pixels)
        model = self.exported.model
        inner = next((part for part in model.modules() if isinstance(part, (VisionTransformer, Eva))), None)
        if inner is None:
            raise InputError(
                f"the attention of {self.record.method} on {self.record.backbone} cannot be read: its model holds no "
                "VisionTransformer or Eva of timm; --features works for it"
            )
        frozen = read_blocks(self.frozen, image, self.frozen, "the frozen backbone")
        adapted = read_blocks(model, image, inner, self.record.method)
        if adapted[0].patches.shape != frozen[0].patches.shape:
            raise InputError(
                f"the attention of {self.record.method} cannot be read: its images have other patches than those of "
                "the frozen backbone; --features works for it"
            )
        with torch.no_grad():
            probabilities = model(image).softmax(dim=1)[0].cpu()
        return [_on_cpu(view) for view in frozen], [_on_cpu(view) for view in adapted], probabilities

    def _normalised(self, pixels: NDArray[np.uint8]) -> Tensor:
        preprocessing, device = self.exported.preprocessing, self.compute.device
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (preprocessing.mean, preprocessing.std))
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255
        return ((image - mean) / std).to(device)


@dataclass(frozen=True)
class OpenedExplanation:
    """A run that can be explained, and its test images if they are needed, none of which has been read."""

    explanation: Explanation
    test_images: OpenedImages | None

    def planned(self) -> Explanation:
        """Return the explanation after hashing the test images; raise ``InputError`` if they are not the run's."""
        if self.test_images is None:
            return self.explanation
        images = self.test_images.identified()
        if not images.same_data:
            raise InputError(
                f"{images.task.name} does not hold the test images of run {self.explanation.record.run_id}; name their "
                "source with --on, or image files to explain"
            )
        return replace(self.explanation, test_images=images)


def plan_explanation(store: Store, run_id: str, options: ExplainOptions, *, features: bool) -> Explanation:
    """Look up a run, open what explaining it needs, and hash its test images; decode none and load no model.

    Raises ``InputError`` as ``open_explanation`` and ``OpenedExplanation.planned`` do.
    """
    return open_explanation(store, run_id, options, features=features).planned()


def open_explanation(store: Store, run_id: str, options: ExplainOptions, *, features: bool) -> OpenedExplanation:
    """Look up a run and open what explaining it needs; read no image.

    Test images are opened if no images are named, or if ``features`` are to be stored. Raises one ``InputError`` for a
    run without weights, images none of which exists, test images that cannot be opened or have other classes, a missing
    file of the backbone's weights, and a missing device.
    """
    checks: list[Callable[[], Any]] = [
        lambda: _open(store, run_id, options, with_test_images=features or not options.images),
        partial(require_a_file, options.images),
        partial(resolve_device, options.device),
    ]
    opened: OpenedExplanation = check_all(checks)[0]
    return opened


def _open(store: Store, run_id: str, options: ExplainOptions, *, with_test_images: bool) -> OpenedExplanation:
    record = tested_record(store, run_id)
    weights = weights_of(store, record)
    checks: list[Callable[[], Any]] = [partial(checkpoint_of, record, options.checkpoint)]
    if with_test_images:
        checks.append(lambda: open_images(record, resize_of(weights), options.on, options.data))
    checkpoint, *images = check_all(checks)
    explanation = Explanation(store, record, weights, replace(options, checkpoint=checkpoint))
    return OpenedExplanation(explanation, images[0] if images else None)


def explain(planned: Explanation, output: Path) -> tuple[list[Path], dict[str, Any]]:
    """Write the figures of an explanation into a folder; return their paths and what they show as values of JSON.

    Images that are named have a figure each. Test images have a montage, and a figure each for the first one that the
    run classified correctly and the first that it did not. Named images that cannot be read have no figure; the values
    tell why (``unreadable``). Raises ``InputError`` if no image can be read, or the attention of the method cannot.
    """
    named = bool(planned.options.images)
    images, unreadable = _photographs(planned) if named else (list(_chosen(planned)), [])
    refuse_all_unreadable(planned.options.images, unreadable)
    title, levels = planned.title, planned.levels
    figures = {}
    if not named:
        figures["montage"] = montage(images, title)
    for image in images if named else _first_of_each(images):
        figures[f"blocks-{image.name}"] = block_figure(image, title, levels)
    if any(view.prompts for view in images[0].adapted):
        figures["prompts"] = prompt_figure(images, title, levels)
    paths = [output / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        write_figure(figure, path)
    facts = {
        "run_id": planned.record.run_id,
        "method": planned.record.method,
        "task": planned.record.task,
        "seed": None if named else planned.options.seed,
        "levels": levels,
        "images": explained_in_numbers(images),
        "unreadable": [each.row() for each in unreadable],
    }
    with atomic_path(output / "explanation.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return [*paths, output / "explanation.json"], facts


def store_features(planned: Explanation) -> Path:
    """Store the final features of the run's test images beside its record, and return the file.

    Raises ``InputError`` if the head of the model cannot be found, ``StoreError`` if the folder cannot be written to.
    """
    split = planned.split
    inputs = image_inputs(split, planned.exported.preprocessing, planned.compute.device, resident=False)
    features = final_features(planned.exported.model, inputs, planned.compute, planned.record.method).cpu().numpy()
    columns: dict[str, Any] = {"index": list(range(len(split))), "label": np.array(split.labels)}
    columns |= {f"f{number}": features[:, number] for number in range(features.shape[1])}
    planned.store.write_features(planned.record.run_id, columns)
    return planned.store.path("features", planned.record.run_id)


def _photographs(planned: Explanation) -> tuple[list[ExplainedImage], list[Unreadable]]:
    """Return the named images, explained, and those that cannot be read."""
    explained, unreadable = [], []
    named, exported = planned.options.images, planned.exported
    squares = read_photographs(named, exported.preprocessing.image_size, exported.resize)
    for name, (_, square) in zip(figure_names(named), squares, strict=True):
        if isinstance(square, Unreadable):
            unreadable.append(square)
        else:
            explained.append(_explained(planned, name, square, None))
    return explained, unreadable


def figure_names(images: Sequence[Path]) -> list[str]:
    """Return a different name for each image file: its own without the suffix, with a number if that is taken.

    Names that differ in case only would be the same file on some systems.
    """
    names: dict[str, str] = {}
    for path in images:
        numbered = (f"{path.stem}-{number}" for number in count(2))
        name = next(name for name in chain([path.stem], numbered) if name.casefold() not in names)
        names[name.casefold()] = name
    return list(names.values())


def _chosen(planned: Explanation) -> Iterator[ExplainedImage]:
    for image in choose_images(planned.store, planned.record.run_id, _EACH, planned.options.seed):
        yield _explained(planned, f"test-{image.index}", planned.split.image(image.index), image.label)


def _explained(planned: Explanation, name: str, pixels: NDArray[np.uint8], label: int | None) -> ExplainedImage:
    frozen, adapted, probabilities = planned.read(pixels)
    predicted, confidence = int(probabilities.argmax()), float(probabilities.max())
    guess = f"{_class(planned, predicted)} ({100 * confidence:.0f} %)"
    right = None if label is None else label == predicted
    heading = guess if label is None or right else f"{_class(planned, label)}, taken for\n{guess}"
    rows, columns = planned.frozen.patch_embed.grid_size
    return ExplainedImage(name, heading, right, predicted, confidence, pixels, (rows, columns), frozen, adapted)


def _class(planned: Explanation, number: int) -> str:
    names = planned.exported.class_names
    return names[number] if names else f"class {number}"


def _first_of_each(images: Sequence[ExplainedImage]) -> list[ExplainedImage]:
    """Return the first image that the run classified correctly, then the first that it did not."""
    firsts = [next((image for image in images if image.right is right), None) for right in (True, False)]
    return [image for image in firsts if image is not None]


def _on_cpu(view: BlockView) -> BlockView:
    prompts = {name: share.float().cpu() for name, share in view.prompts.items()}
    guiding = None if view.guiding is None else view.guiding.cpu()
    return BlockView(view.attention.float().cpu(), view.patches.float().cpu(), prompts, guiding)
