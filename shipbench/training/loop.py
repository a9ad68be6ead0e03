"""Fit and evaluate; knows no method by name."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shipbench.errors import ShipbenchError
from shipbench.hardware.precision import ComputeContext
from shipbench.recipe import Recipe
from shipbench.training.history import EpochReport, Evaluation, Fit
from shipbench.training.inputs import Inputs
from shipbench.training.micro_batches import MicroBatches, PartOfBatch, in_portions, inference_batch
from shipbench.training.prefetch import Prefetcher
from shipbench.training.schedule import learning_rates
from shipbench.training.snapshot import Snapshot, capture, random_states, restore, set_random_states


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimiser of the trained tensors; weight decay acts on those of two or more dimensions only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9)
    # One kernel for all tensors on a GPU; on the CPU the plain loop is what runs are compared with bit for bit.
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True if trained[0].is_cuda else None)


def _ignore(_: object) -> None:
    return None


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Hooks:
    """What a caller may attach to training.

    ``say`` hears notes; ``start`` is where an earlier process got to; ``keep`` is offered a snapshot after every epoch
    but the last, as a function that takes it; ``check`` is called before every step and raises to stop the run.
    """

    say: Callable[[str], None] = _ignore
    start: Snapshot | None = None
    keep: Callable[[Callable[[], Snapshot]], None] = _ignore
    check: Callable[[], None] = _nothing


def fit(
    model: nn.Module,
    train: Inputs,
    evaluation: Inputs,
    recipe: Recipe,
    compute: ComputeContext,
    seed: int,
    on_epoch: Callable[[EpochReport], None],
    hooks: Hooks | None = None,
) -> Fit:
    """Train for the recipe's epochs and evaluate when it says so, always after the last one.

    Raises ``ShipbenchError`` with the epoch and the settings if the loss stops being finite, and if not even one image
    fits into the device's memory; with fewer than a batch, gradients are added up over parts of it.
    """
    hooks = hooks or Hooks()
    trainer = Trainer(model, train, evaluation, recipe, compute, seed, hooks)
    epochs = trainer.resume(hooks.start) if hooks.start else []
    for epoch in range(len(epochs), recipe.epochs):
        epochs.append(trainer.epoch(epoch))
        on_epoch(epochs[-1])
        if epoch < recipe.epochs - 1:
            hooks.keep(lambda: trainer.snapshot(epochs))
    return Fit(epochs, trainer.micro_batch)


class Trainer:
    """A model in training: its optimiser, the order of its images, and how many of them fit at once."""

    def __init__(
        self,
        model: nn.Module,
        train: Inputs,
        evaluation: Inputs,
        recipe: Recipe,
        compute: ComputeContext,
        seed: int,
        hooks: Hooks,
    ) -> None:
        self.model, self.train, self.evaluation = model, train, evaluation
        self.recipe, self.compute, self.hooks = recipe, compute, hooks
        self.optimizer = make_optimizer(model, recipe)
        self.order = torch.Generator().manual_seed(seed)
        self.rates = learning_rates(recipe.schedule, recipe.lr, recipe.epochs, recipe.warmup_epochs)
        self.batch = min(recipe.batch_size, len(train))
        self.portions = MicroBatches(self.batch, "training", hooks.say)
        self.evaluated_portions = MicroBatches(inference_batch(compute.device), "evaluation", hooks.say)

    @property
    def micro_batch(self) -> int:
        """As in ``Fit``."""
        return self.portions.size if self.portions.size < self.batch else 0

    def snapshot(self, epochs: list[EpochReport]) -> Snapshot:
        """Return everything that decides the rest of the run, after ``epochs``."""
        tensors = capture(self.model, self.optimizer, self.order, self.compute.device)
        return Snapshot(tensors, tuple(epochs), (self.portions.size, self.evaluated_portions.size))

    def resume(self, start: Snapshot) -> list[EpochReport]:
        """Go to where a snapshot was taken and return the epochs before it."""
        restore(start.tensors, self.model, self.optimizer, self.order, self.compute.device)
        self.portions.size, self.evaluated_portions.size = start.portions
        return list(start.epochs)

    def epoch(self, epoch: int) -> EpochReport:
        """Train for one epoch, and evaluate if the recipe says so."""
        report = self._train(epoch)
        return self._with_evaluation(report) if is_due(epoch, self.recipe) else report

    def begin(self, epoch: int) -> list[Tensor]:
        """Make ready for an epoch and return its batches, as indices of images."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[epoch]
        self.model.train()
        return list(_batches(len(self.train), self.recipe, self.order))

    def report(self, epoch: int, losses: list[Tensor], images: int, start: float, share: int = 1) -> EpochReport:
        """Report an epoch that began at ``start`` (``time.perf_counter``) and that ``share`` runs spent together.

        Raises ``ShipbenchError`` if the mean of the steps' ``losses`` is not finite.
        """
        # Reading the loss once an epoch, not once a step, lets a GPU run ahead.
        mean_loss = float(torch.stack(losses).float().mean())
        rate = self.rates[epoch]
        if not math.isfinite(mean_loss):
            raise ShipbenchError(_diverged(mean_loss, epoch, rate, self.recipe, self.compute))
        seconds = (time.perf_counter() - start) / share
        return EpochReport(epoch, self.recipe.epochs, mean_loss, rate, seconds, images)

    def _train(self, epoch: int) -> EpochReport:
        start = time.perf_counter()
        losses = []
        batches = self.begin(epoch)
        for chosen in batches:
            self.hooks.check()
            losses.append(self._step(chosen))
        return self.report(epoch, losses, sum(map(len, batches)), start)

    def _step(self, chosen: Tensor) -> Tensor:
        """Take one step on a batch and return its loss; starts the step again with less if memory runs out."""
        randomness = random_states(self.compute.device)
        loss = self._gradients(chosen, randomness)
        while loss is None:
            self.portions.shrink(len(chosen))
            loss = self._gradients(chosen, randomness)
        self.optimizer.step()
        return loss

    def _gradients(self, chosen: Tensor, randomness: dict[str, Tensor]) -> Tensor | None:
        """Leave the gradients of a batch's mean loss and return that loss, or None if memory ran out."""
        self.optimizer.zero_grad(set_to_none=True)
        # What runs after an out-of-memory error runs outside its handler: the error holds on to the failed pass.
        with contextlib.suppress(torch.OutOfMemoryError):
            if self.portions.size >= len(chosen):
                return self._backward(chosen, 1.0)
            total = torch.zeros((), device=self.compute.device)
            for start in range(0, len(chosen), self.portions.size):
                part = chosen[start : start + self.portions.size]
                set_random_states(randomness, self.compute.device)
                # A mean over the batch is the mean of its parts, weighted by their sizes.
                with PartOfBatch(start, len(part), len(chosen)):
                    total += self._backward(part, len(part) / len(chosen))
            return total
        return None

    def _backward(self, chosen: Tensor, weight: float) -> Tensor:
        with self.compute.autocast():
            labels = self.train.labels[chosen.to(self.compute.device, non_blocking=True)]
            loss: Tensor = self.model.loss(self.train.batch(chosen), labels)  # type: ignore[operator]
        if weight != 1.0:
            loss = loss * weight
        loss.backward()
        return loss.detach()

    def _with_evaluation(self, report: EpochReport) -> EpochReport:
        start = time.perf_counter()
        evaluation = _evaluate(self.model, self.evaluation, self.compute, self.evaluated_portions)
        return replace(report, evaluation=evaluation, eval_seconds=time.perf_counter() - start)


def is_due(epoch: int, recipe: Recipe) -> bool:
    """Return whether an evaluation follows ``epoch``."""
    every = recipe.eval_every
    return epoch == recipe.epochs - 1 or (every > 0 and epoch % every == 0)


def _diverged(loss: float, epoch: int, rate: float, recipe: Recipe, compute: ComputeContext) -> str:
    settings = f"optimizer={recipe.optimizer}, lr={recipe.lr:g}, batch_size={recipe.batch_size}"
    where = f"in epoch {epoch} at learning rate {rate:g} ({settings}, precision={compute.precision})"
    return f"the loss is {loss} {where}; try a lower lr"


def _batches(count: int, recipe: Recipe, order: torch.Generator) -> Iterator[Tensor]:
    size = min(recipe.batch_size, count)
    chunks = torch.randperm(count, generator=order).split(size)
    return (chunk for chunk in chunks if len(chunk) == size or not recipe.drop_last)


def evaluate(model: nn.Module, inputs: Inputs, compute: ComputeContext, batch_size: int | None = None) -> Evaluation:
    """Score a model on a split, in order; with fewer images at a time if the device's memory asks for it."""
    size = batch_size or inference_batch(compute.device)
    return _evaluate(model, inputs, compute, MicroBatches(size, "evaluation", _ignore))


@torch.no_grad()
def _evaluate(model: nn.Module, inputs: Inputs, compute: ComputeContext, portions: MicroBatches) -> Evaluation:
    model.eval()
    with Prefetcher(inputs) as ahead:
        logits = in_portions(len(inputs), portions, lambda chunk: _logits(model, ahead.batch(chunk), compute))
    return score_logits(logits, inputs.labels)


def score_logits(logits: Tensor, labels: Tensor) -> Evaluation:
    """Return the scores of a split's logits (n, classes), float32."""
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    accuracy = (predicted == labels).double().mean()
    loss = F.cross_entropy(logits, labels)
    return Evaluation(float(loss), float(accuracy), predicted.cpu(), confidence.cpu())


def _logits(model: nn.Module, batch: Tensor, compute: ComputeContext) -> Tensor:
    with compute.autocast():
        return model(batch).float()
