"""What is measured: the bare backbone and every method's model, as they are and compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from shipbench.hardware.flops import count_flops
from shipbench.hardware.precision import ComputeContext
from shipbench.recipe import Recipe
from shipbench.training.loop import make_optimizer


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, H, W) and labels (B,), on the device on which they are computed with."""

    images: Tensor
    labels: Tensor
    compute: ComputeContext


@dataclass(frozen=True)
class Subject:
    """A model, and the functions that compute its logits and its loss."""

    name: str
    prompt_length: int | None
    model: nn.Module
    batch: Batch
    forward: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: torch.optim.Optimizer | None
    compiled: bool = False

    def infer(self) -> None:
        """Compute the logits of the batch."""
        self.model.eval()
        with torch.no_grad(), self.batch.compute.autocast():
            self.forward(self.batch.images)

    def train(self) -> None:
        """Take a training step."""
        self._train(self.loss)

    def flops(self) -> tuple[float, float]:
        """Return FLOPs for an image, at inference and in a training step; a compiled model has those of its source."""
        self.model.eval()
        inference = count_flops(lambda: self.model(self.batch.images))
        training = count_flops(lambda: self._train(self.model.loss))  # type: ignore[arg-type]
        return inference / len(self.batch.images), training / len(self.batch.images)

    def _train(self, loss_of: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.model.train()
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        with self.batch.compute.autocast():
            loss = loss_of(self.batch.images, self.batch.labels)
        loss.backward()
        if self.optimizer is not None:
            self.optimizer.step()


def subject(name: str, prompt_length: int | None, model: nn.Module, batch: Batch) -> Subject:
    """Return a model as it is; one without trained tensors, like the bare backbone, needs no optimiser."""
    trains = any(parameter.requires_grad for parameter in model.parameters())
    optimizer = make_optimizer(model, Recipe()) if trains else None
    return Subject(name, prompt_length, model, batch, model, model.loss, optimizer)  # type: ignore[arg-type]


def compile_subject(source: Subject, say: Callable[[str], None]) -> Subject | None:
    """Return the same model compiled by ``torch.compile`` and warmed up, or None, and a line, if that fails."""
    compiled = replace(
        source,
        forward=torch.compile(source.forward),
        loss=torch.compile(source.loss),
        compiled=True,
    )
    try:
        compiled.infer()
        compiled.train()
    # A compiler fails in ways of its own: no C++ compiler, code that it cannot trace, a bug.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        say(f"{source.name} is measured without torch.compile only, which failed: {reason}")
        return None
    return compiled
