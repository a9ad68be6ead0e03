"""Fit and evaluate; knows no method by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shipbench.errors import ShipbenchError
from shipbench.training.inputs import Inputs
from shipbench.training.recipe import Recipe
from shipbench.training.schedule import learning_rates

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Evaluation:
    """Scores of one split: mean ``loss``, ``accuracy`` in [0, 1]; ``predicted`` and ``confidence`` (n,) on the CPU."""

    loss: float
    accuracy: float
    predicted: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class EpochReport:
    """One epoch of training: its mean loss, rate and speed, and the evaluation that followed it, if any."""

    epoch: int
    epochs: int
    train_loss: float
    learning_rate: float
    train_seconds: float
    images: int
    evaluation: Evaluation | None = None
    eval_seconds: float = 0.0

    def without_predictions(self) -> EpochReport:
        """Return the same report with nothing per image in it."""
        if self.evaluation is None:
            return self
        nothing = torch.empty(0)
        return replace(self, evaluation=replace(self.evaluation, predicted=nothing, confidence=nothing))


@dataclass(frozen=True)
class Fit:
    """All epochs of a finished training run."""

    epochs: list[EpochReport] = field(default_factory=list)

    @property
    def evaluated(self) -> list[tuple[int, Evaluation]]:
        """The evaluations, with the epochs that they followed."""
        return [(report.epoch, report.evaluation) for report in self.epochs if report.evaluation is not None]


@dataclass(frozen=True)
class Arithmetic:
    """Where and how exactly a model is computed."""

    device: torch.device
    precision: str

    def autocast(self) -> torch.autocast:
        """Return the mixed-precision context, inactive in fp32."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def wait(self) -> None:
        """Wait for the device, so that a clock can be read."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


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
    return torch.optim.AdamW(groups, lr=recipe.lr)


def fit(
    model: nn.Module,
    train: Inputs,
    evaluation: Inputs,
    recipe: Recipe,
    arithmetic: Arithmetic,
    seed: int,
    on_epoch: Callable[[EpochReport], None],
) -> Fit:
    """Train for the recipe's epochs and evaluate when it says so, always after the last one.

    Raises ``ShipbenchError`` with the epoch and the learning rate if the loss stops being finite.
    """
    optimizer = make_optimizer(model, recipe)
    order = torch.Generator().manual_seed(seed)
    done = Fit()
    for epoch, rate in enumerate(learning_rates(recipe.schedule, recipe.lr, recipe.epochs, recipe.warmup_epochs)):
        for group in optimizer.param_groups:
            group["lr"] = rate
        report = _train_epoch(model, train, optimizer, recipe, arithmetic, order, epoch, rate)
        if _due(epoch, recipe):
            report = _with_evaluation(report, model, evaluation, arithmetic)
        done.epochs.append(report)
        on_epoch(report)
    return done


def _due(epoch: int, recipe: Recipe) -> bool:
    every = recipe.eval_every
    return epoch == recipe.epochs - 1 or (every > 0 and epoch % every == 0)


def _train_epoch(
    model: nn.Module,
    train: Inputs,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    arithmetic: Arithmetic,
    order: torch.Generator,
    epoch: int,
    rate: float,
) -> EpochReport:
    model.train()
    start = time.perf_counter()
    losses = []
    images = 0
    for chosen in _batches(len(train), recipe, order):
        optimizer.zero_grad(set_to_none=True)
        with arithmetic.autocast():
            loss: Tensor = model.loss(train.batch(chosen), train.labels[chosen.to(arithmetic.device)])  # type: ignore[operator]
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        images += len(chosen)
    # Reading the loss once an epoch, not once a step, lets a GPU run ahead.
    mean_loss = float(torch.stack(losses).float().mean())
    if not math.isfinite(mean_loss):
        raise ShipbenchError(f"the loss is {mean_loss} in epoch {epoch} at learning rate {rate:g}; try a lower lr")
    return EpochReport(epoch, recipe.epochs, mean_loss, rate, time.perf_counter() - start, images)


def _batches(count: int, recipe: Recipe, order: torch.Generator) -> Iterator[Tensor]:
    size = min(recipe.batch_size, count)
    chunks = torch.randperm(count, generator=order).split(size)
    return (chunk for chunk in chunks if len(chunk) == size or not recipe.drop_last)


def _with_evaluation(report: EpochReport, model: nn.Module, inputs: Inputs, arithmetic: Arithmetic) -> EpochReport:
    start = time.perf_counter()
    evaluation = evaluate(model, inputs, arithmetic)
    seconds = time.perf_counter() - start
    return replace(report, evaluation=evaluation, eval_seconds=seconds)


@torch.no_grad()
def evaluate(
    model: nn.Module, inputs: Inputs, arithmetic: Arithmetic, batch_size: int = EVALUATION_BATCH
) -> Evaluation:
    """Score a model on a split, in order."""
    model.eval()
    parts = []
    for chunk in torch.arange(len(inputs)).split(batch_size):
        with arithmetic.autocast():
            parts.append(model(inputs.batch(chunk)).float())
    logits = torch.cat(parts)
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    accuracy = (predicted == inputs.labels).double().mean()
    loss = F.cross_entropy(logits, inputs.labels)
    return Evaluation(float(loss), float(accuracy), predicted.cpu(), confidence.cpu())
