"""What a planned run costs, estimated from its backbone and recipe: the same on every day and every machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.backbones import RANDOM, input_size_of, load_backbone
from shipbench.backbones.architecture import why_unpromptable
from shipbench.hardware.flops import count_flops
from shipbench.planning.plan import PlannedRun
from shipbench.prompting import image_token_count
from shipbench.spec import RunSpec

MEMORY_SHARE = 0.8
"""The share of the memory of a machine or of a device that runs may take by ``estimated_bytes``."""
# A step through a frozen backbone keeps 16 to 17 numbers per token, channel and block (timm's ViT-Ti and ViT-S in fp32
# on a CPU); the rest is for what methods add and for weights in training. In bf16, where residuals stay in fp32, it
# keeps 0.6 to 0.7 of the bytes: at most 43 of the 44 that 22 numbers of 2 bytes take.
_NUMBERS_KEPT = 22
# Settings of methods that are numbers of prompts, each a token more in every block.
_PROMPTS = ("prompt_length", "shared_length", "attribute_length")
_BYTES = 4
# A weight, its gradient and two moments of AdamW.
_NUMBERS_PER_WEIGHT = 4
# Resident memory of a process that has imported torch, timm and shipbench.
_PROCESS_BYTES = 0.8e9


@dataclass(frozen=True)
class _Size:
    """The size of a backbone: FLOPs, tokens and numbers kept for the backward pass per image, and weights.

    There are no tokens if prompts cannot join them.
    """

    flops: float
    tokens: int
    numbers: int
    weights: int


def estimated_flops(run: PlannedRun) -> float:
    """Estimate a run's FLOPs; the backward pass to a frozen backbone's tokens costs as much as the forward pass.

    Where a method trains on features, there is none, and only features of augmented images change with the epoch.
    """
    task, recipe = run.spec.resolved.task, run.spec.resolved.recipe
    passes = 2 * recipe.epochs
    if run.spec.resolved.method.trains_on_features:
        passes = 1 if task.augment == "none" else recipe.epochs
    n_train = (task.shots * task.num_classes or task.n_train) * recipe.data_share
    return (passes * n_train + task.n_test) * _size_for(run).flops


def forward_flops(spec: RunSpec) -> float:
    """Return the FLOPs of one forward pass of a spec's backbone, per image."""
    return _size(spec.resolved.backbone, spec.resolved.recipe.image_size).flops


def estimated_bytes(run: PlannedRun, count: int = 1, bytes_kept: int = _BYTES) -> float:
    """Estimate, from above, the bytes that ``count`` runs like ``run`` take in one process.

    Each number that a step keeps for its backward pass takes ``bytes_kept``. Runs over a frozen backbone share its
    weights; full fine-tuning is never stacked.
    """
    size, resolved = _size_for(run), run.spec.resolved
    images = count * resolved.recipe.batch_size
    prompts = sum(getattr(resolved.settings, name, None) or 0 for name in _PROMPTS) if size.tokens else 0
    weights = _BYTES * _NUMBERS_PER_WEIGHT * size.weights
    return _PROCESS_BYTES + weights + bytes_kept * images * size.numbers * (1 + prompts / (size.tokens or 1))


def _size_for(run: PlannedRun) -> _Size:
    resolved = run.spec.resolved
    return _size(resolved.backbone, resolved.recipe.image_size)


@cache
def _size(backbone: str, image_size: int | None) -> _Size:
    model = load_backbone(backbone, checkpoint=RANDOM, image_size=image_size)
    image = torch.zeros(1, 3, *input_size_of(model))
    weights = sum(weight.numel() for weight in model.parameters())
    tokens = 0 if why_unpromptable(model) else image_token_count(model)
    return _Size(count_flops(lambda: model(image)), tokens, _numbers_kept(model, image), weights)


def _numbers_kept(model: Any, image: Tensor) -> int:
    """Return the numbers that a training step keeps for its backward pass through one image."""
    if isinstance(model, VisionTransformer):
        return int(_NUMBERS_KEPT * image_token_count(model) * model.embed_dim * len(model.blocks))
    counts: list[int] = []
    leaves = [module for module in model.modules() if not any(module.children())]
    handles = [leaf.register_forward_hook(lambda _leaf, _inputs, output: _count(output, counts)) for leaf in leaves]
    with torch.no_grad():
        model(image)
    for handle in handles:
        handle.remove()
    return sum(counts)


def _count(output: object, counts: list[int]) -> None:
    if isinstance(output, Tensor):
        counts.append(output.numel())
