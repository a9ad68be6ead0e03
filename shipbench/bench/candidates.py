"""The candidates of a benchmark, and the subjects built from them: together in one process, or each in a new one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.backbones import feature_width, input_size_of, load_backbone, origin_of
from shipbench.bench.bare import BareBackbone
from shipbench.bench.options import LEVELS, BenchOptions
from shipbench.bench.subjects import Batch, Subject, make_subject
from shipbench.errors import InputError
from shipbench.hardware.determinism import seed_everything
from shipbench.hardware.memory import keep_freed_memory
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import BuildContext, Mergeable, Method
from shipbench.settings import configure, field_names

# Images in the synthetic features that a method with a hierarchy or a bank is built from.
_FEATURE_IMAGES = 256


@dataclass(frozen=True)
class Candidate:
    """A method with a prompt length and overridden ``settings``; without a method, the bare backbone.

    ``merged``: the method's model merged into the backbone, as it serves after training.
    """

    method: Method | None
    prompt_length: int | None
    settings: Mapping[str, Any]
    merged: bool = False

    @property
    def name(self) -> str:
        """The name in tables."""
        if self.method is None:
            return "bare backbone"
        return f"{self.method.name}, merged" if self.merged else self.method.name


def candidates(
    methods: Sequence[Method], options: BenchOptions, settings: Mapping[str, Mapping[str, Any]]
) -> list[Candidate]:
    """Return the bare backbone, then every method at every prompt length; ``settings`` are overrides by method name."""
    listed = [Candidate(None, None, {})]
    for method in methods:
        prompted = "prompt_length" in field_names(method.settings)
        for length in options.prompt_lengths if prompted else (None,):
            listed.append(Candidate(method, length, settings.get(method.name, {})))
        if options.merged and method.mergeable:
            listed.append(Candidate(method, None, settings.get(method.name, {}), merged=True))
    return listed


def make_fixture(options: BenchOptions, compute: ComputeContext) -> tuple[VisionTransformer, Batch]:
    """Seed and configure this process as a run does, and return a backbone and a random batch.

    Both are the same on every call with equal arguments.
    """
    backbone = load_bare_backbone(options, compute)
    size = input_size_of(backbone)[0]
    images = torch.randn(options.batch_size, 3, size, size, device=compute.device)
    labels = torch.randint(options.num_classes, (options.batch_size,), device=compute.device)
    return backbone, Batch(images, labels, compute)


def load_bare_backbone(options: BenchOptions, compute: ComputeContext) -> VisionTransformer:
    """Seed and configure this process as a run does, and return the backbone on the device of ``compute``."""
    keep_freed_memory(compute.device)
    seed_everything(0, compute.device)
    return load_backbone(
        options.backbone,
        checkpoint=options.checkpoint,
        image_size=options.image_size,
        drop_path=options.drop_path,
    ).to(compute.device)


def build(candidate: Candidate, options: BenchOptions, backbone: VisionTransformer, batch: Batch) -> Subject:
    """Return a subject over a copy of ``backbone``.

    Raises ``InputError`` for levels that do not fit the backbone, and for settings that the method refuses.
    """
    if candidate.method is None:
        return make_subject(candidate.name, None, BareBackbone(backbone), batch)
    model = model_of(candidate, options, copy.deepcopy(backbone)).to(batch.images.device)
    if candidate.merged:
        return make_subject(candidate.name, None, BareBackbone(_merged(model, backbone)), batch)
    return make_subject(candidate.name, candidate.prompt_length, model, batch)


def _merged(model: nn.Module, backbone: VisionTransformer) -> VisionTransformer:
    """Return a copy of ``backbone``, which has no classifier, with the weights of a merged model."""
    assert isinstance(model, Mergeable)
    plain, merged = copy.deepcopy(backbone), model.merged_state()
    plain.load_state_dict({key: merged[key] for key in plain.state_dict() if key in merged})
    return plain


def model_of(candidate: Candidate, options: BenchOptions, backbone: VisionTransformer) -> nn.Module:
    """Build the model of a candidate that has a method, on ``backbone`` itself; raise ``InputError`` as ``build``."""
    assert candidate.method is not None
    length = candidate.prompt_length
    values = {**candidate.settings} | ({} if length is None else {"prompt_length": length})
    settings = configure(candidate.method.settings, values)
    reason = candidate.method.why_unusable(origin_of(backbone), settings)
    if reason:
        raise InputError(f"{candidate.method.name} cannot use backbone {options.backbone!r}: {reason}")
    context = BuildContext(
        backbone=backbone,
        num_classes=options.num_classes,
        settings=settings,
        block_features=lambda _: _features_with_levels(_levels(options, len(backbone.blocks)), backbone),
        say=lambda _: None,
    )
    return candidate.method.build(context).model


def _levels(options: BenchOptions, depth: int) -> Sequence[int]:
    """Return the levels; of the default, which is made for twelve blocks, those that a shallower backbone can have."""
    return [level for level in options.levels if level < depth or options.levels != LEVELS]


def _features_with_levels(levels: Sequence[int], backbone: VisionTransformer) -> Tensor:
    """Return features (images, blocks, D): parallel within a level and orthogonal across levels, up to noise."""
    depth, width = len(backbone.blocks), feature_width(backbone)
    if levels[0] != 0 or list(levels) != sorted(set(levels)) or levels[-1] >= depth:
        stated = ",".join(map(str, levels))
        raise InputError(f"--levels {stated} must start with 0, rise, and stay below the backbone's {depth} blocks")
    directions = torch.linalg.qr(torch.randn(width, len(levels)))[0].T
    of_block = [sum(level <= block for level in levels) - 1 for block in range(depth)]
    lengths = torch.rand(_FEATURE_IMAGES, 1, 1).add(0.5)
    return directions[of_block] * lengths + 1e-4 * torch.randn(_FEATURE_IMAGES, depth, width)
