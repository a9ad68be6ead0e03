"""The subjects of a benchmark: the bare backbone and every method's model, plain or compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.errors import one_line
from shipbench.hardware.flops import count_flops
from shipbench.hardware.precision import ComputeContext
from shipbench.prompting import evaluating
from shipbench.recipe import Recipe
from shipbench.training.optimisers import make_optimizer


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, H, W) and labels (B,) on the device of ``compute``."""

    images: Tensor
    labels: Tensor
    compute: ComputeContext


@dataclass(frozen=True)
class Subject:
    """A model with its batch, and the functions that compute its logits and its loss.

    ``forward`` and ``loss`` are compiled if ``compiled``; ``model`` is not. ``optimizer`` is None for a model without
    trained tensors, such as the bare backbone.
    """

    name: str
    prompt_length: int | None
    model: nn.Module
    batch: Batch
    forward: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: torch.optim.Optimizer | None
    compiled: bool = False

    @contextmanager
    def evaluation(self) -> Iterator[Callable[[], None]]:
        """Yield a function that computes the logits of the batch, as one of many batches of one evaluation."""
        self.model.eval()
        with evaluating(self.model):
            yield self._infer

    def _infer(self) -> None:
        with torch.no_grad(), self.batch.compute.autocast():
            self.forward(self.batch.images)

    def train(self) -> None:
        """Take one training step on the batch."""
        self._train(self.loss)

    def flops(self) -> tuple[float, float]:
        """Return the FLOPs per image of inference and of a training step, counted on the model that is not compiled."""
        self.model.eval()
        with self.batch.compute.autocast():
            inference = count_flops(lambda: self.model(self.batch.images))
        training = count_flops(lambda: self._train(self.model.loss))  # type: ignore[arg-type]
        return inference / len(self.batch.images), training / len(self.batch.images)

    def _train(self, loss_of: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.model.train()
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        with self.batch.compute.autocast():
            loss = loss_of(self.batch.images, self.batch.labels)
        with self.batch.compute.products():
            loss.backward()
        if self.optimizer is not None:
            self.optimizer.step()


def make_subject(name: str, prompt_length: int | None, model: nn.Module, batch: Batch) -> Subject:
    """Return a subject that is not compiled, with an optimiser if the model has trained tensors.

    In bf16, its frozen weights are cast as those of a run are, and those of the bare backbone likewise.
    """
    cast_frozen_weights(model, batch.compute)
    trains = any(parameter.requires_grad for parameter in model.parameters())
    optimizer = make_optimizer(model, Recipe()) if trains else None
    return Subject(name, prompt_length, model, batch, model, model.loss, optimizer)  # type: ignore[arg-type]


def compile_subject(source: Subject, warn: Callable[[str], None]) -> Subject | None:
    """Return ``source`` compiled by ``torch.compile`` and warmed up; if that fails, warn and return None."""
    if source.batch.compute.lacks_bf16:
        warn(f"{source.name} is measured only without torch.compile, which leaves bf16 without instructions slow")
        return None
    compiled = replace(
        source,
        forward=torch.compile(source.forward),
        loss=torch.compile(source.loss),
        compiled=True,
    )
    try:
        with compiled.evaluation() as infer:
            infer()
        compiled.train()
    # Compilers fail in many ways: no C++ compiler, code that cannot be traced, bugs.
    except Exception as error:
        warn(f"{source.name} is measured only without torch.compile, which failed: {one_line(error)}")
        return None
    return compiled
