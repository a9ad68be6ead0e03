"""The passes of a stack: losses on the batches of all runs, and logits on one batch for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shipbench.prompting import StackInput, embed, stacked_forward
from shipbench.prompting.streams import PromptMemo
from shipbench.training.inputs import Inputs


def images_of(views: Sequence[Inputs], batches: Sequence[Tensor]) -> Tensor:
    """Return the images of all batches; runs that augment see other pixels of the same image."""
    if all(view is views[0] for view in views):
        return views[0].batch(torch.cat(list(batches)))
    return torch.cat([view.batch(batch) for view, batch in zip(views, batches, strict=True)])


def stacked_losses(models: Sequence[Any], parts: Sequence[StackInput], images: Tensor, labels: Tensor) -> list[Tensor]:
    """Return each model's loss on its share of ``images`` (R x B, 3, H, W) and ``labels`` (R x B,), in one pass."""
    backbone = models[0].backbone
    outputs = stacked_forward(backbone, embed(backbone, images), parts)
    shares = labels.chunk(len(models))
    return [model.loss_of(*output) for model, *output in zip(models, outputs, shares, strict=True)]


def stacked_logits(models: Sequence[Any], images: Tensor, memo: PromptMemo | None) -> Tensor:
    """Return the logits (B, R, classes), float32, of all models on ``images`` (B, 3, H, W), which are embedded once."""
    backbone = models[0].backbone
    tokens = embed(backbone, images).repeat(len(models), 1, 1)
    inputs = [model.stack_input(len(images), match=False) for model in models]
    outputs = stacked_forward(backbone, tokens, inputs, memo)
    logits = [model.logits_of(output).float() for model, output in zip(models, outputs, strict=True)]
    return torch.stack(logits, dim=1)
