"""Fit a model and evaluate it, whatever its method."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from shipbench.errors import ShipbenchError
from shipbench.events import DISCARD, Emitter
from shipbench.hardware.memory import lacks_memory
from shipbench.hardware.precision import ComputeContext
from shipbench.prompting import evaluating
from shipbench.recipe import Capture, Recipe
from shipbench.training.captured import CapturedForward, FollowsSteps, recorder_of, replayed
from shipbench.training.captured_run import CapturedRun
from shipbench.training.graphs import can_record
from shipbench.training.history import EpochReport, Evaluation, Fit
from shipbench.training.inputs import Inputs, sent
from shipbench.training.micro_batches import MicroBatches, PartOfBatch, each_micro_batch, inference_batch
from shipbench.training.optimisers import make_optimizer, set_learning_rate
from shipbench.training.prefetch import BatchReader, reading_ahead
from shipbench.training.schedule import learning_rates
from shipbench.training.scores import Scores
from shipbench.training.snapshot import Snapshot, copied_state, random_states, restore, set_random_states


@dataclass(frozen=True)
class Hooks:
    """Where training starts, and what it calls along the way.

    ``emitter`` receives a note or the report of an epoch. ``start`` is the snapshot to resume from. ``keep`` is offered
    a snapshot after every epoch but the last, as a function that takes it. ``check`` is called before every step and
    raises to stop the run.
    """

    emitter: Emitter = DISCARD
    start: Snapshot | None = None
    keep: Callable[[Callable[[], Snapshot]], None] | None = None
    check: Callable[[], None] | None = None


def fit(
    model: nn.Module,
    train: Inputs,
    evaluation: Inputs,
    recipe: Recipe,
    compute: ComputeContext,
    seed: int,
    hooks: Hooks | None = None,
) -> Fit:
    """Train for the recipe's epochs; evaluate as often as it asks, and always after the last epoch.

    If a batch does not fit into the device's memory, gradients are accumulated over parts of it. Raises
    ``ShipbenchError`` with the epoch and the settings if the loss stops being finite, and if not even one image fits
    into memory.
    """
    trainer = Trainer(model, train, evaluation, recipe, compute, seed, hooks or Hooks())
    epochs = trainer.resume()
    for epoch in range(len(epochs), recipe.epochs):
        epochs.append(trainer.epoch(epoch))
        trainer.close_epoch(epochs, lambda: trainer.snapshot(epochs))
    return Fit(epochs, trainer.micro_batch, trainer.captured)


class Trainer:
    """A model in training, with its optimiser, the order of its images, and its micro-batches."""

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
        self.model, self.train, self.evaluation, self.seed = model, train, evaluation, seed
        self.epoch_inputs = train
        self.reader: BatchReader = train
        self.recipe, self.compute, self.hooks = recipe, compute, hooks
        self.optimizer = make_optimizer(model, recipe)
        self.order = torch.Generator().manual_seed(seed)
        self.rates = learning_rates(recipe.schedule, recipe.lr, recipe.epochs, recipe.warmup_epochs)
        self.batch = min(recipe.batch_size, len(train))
        self.micro_batches = MicroBatches(self.batch, "training", hooks.emitter.note)
        self.evaluation_batches = MicroBatches(inference_batch(compute.device), "evaluation", hooks.emitter.note)
        self.recorder = recorder_of([model], recipe.capture, compute)
        self._score = CapturedForward(lambda batch: _logits(model, batch, compute), self.recorder, hooks.emitter.note)
        self._records = self.recorder is not None
        self._captured_run: CapturedRun | None = None
        self._has_replayed = False

    @property
    def micro_batch(self) -> int:
        """The number of images per forward pass after memory ran out, 0 if it never did."""
        return self.micro_batches.size if self.micro_batches.size < self.batch else 0

    @property
    def captured(self) -> bool:
        """Whether training steps have been recorded and replayed."""
        return self._has_replayed or (self._captured_run is not None and self._captured_run.recorded)

    def snapshot(self, epochs: list[EpochReport]) -> Snapshot:
        """Return all state that determines the rest of the run after ``epochs``."""
        tensors = copied_state(self.model, self.optimizer, self.order, self.compute.device)
        return Snapshot(tensors, tuple(epochs), (self.micro_batches.size, self.evaluation_batches.size))

    def resume(self) -> list[EpochReport]:
        """Restore the snapshot to start from, if there is one, and return the epochs before it."""
        start = self.hooks.start
        if start is None:
            return []
        restore(start.tensors, self.model, self.optimizer, self.order, self.compute.device)
        self.micro_batches.size, self.evaluation_batches.size = start.micro_batches
        return list(start.epochs)

    def epoch(self, epoch: int) -> EpochReport:
        """Train for one epoch, and evaluate if the recipe asks for it."""
        report = self._train(epoch)
        return self._with_evaluation(report) if is_due(epoch, self.recipe) else report

    def close_epoch(self, epochs: list[EpochReport], take: Callable[[], Snapshot]) -> None:
        """Emit the report of the last of ``epochs``; offer the snapshot that ``take`` takes unless the run is over."""
        emitter, keep = self.hooks.emitter, self.hooks.keep
        emitter.emit(epochs[-1].to_event(emitter.run_id))
        if keep is not None and len(epochs) < self.recipe.epochs:
            keep(take)

    def begin(self, epoch: int) -> list[Tensor]:
        """Prepare an epoch, with its own view of the images, and return its batches, as indices of images."""
        self.reader = self.epoch_inputs = self.train.for_epoch(self.seed, epoch)
        set_learning_rate(self.optimizer, self.rates[epoch])
        self.model.train()
        if self._captured_run is not None:
            self._captured_run.begin_epoch()
        batches = torch.randperm(len(self.train), generator=self.order).split(self.batch)
        return [batch for batch in batches if len(batch) == self.batch or not self.recipe.drop_last]

    def check(self) -> None:
        """Call the hook that may stop the run."""
        if self.hooks.check is not None:
            self.hooks.check()

    def report(self, epoch: int, losses: list[Tensor], images: int, start: float, share: int = 1) -> EpochReport:
        """Report an epoch that began at ``start`` (``time.perf_counter``) and whose time ``share`` runs divide.

        Raises ``ShipbenchError`` if the mean of the steps' ``losses`` is not finite.
        """
        # Reading the loss once per epoch instead of once per step lets a GPU run ahead.
        mean_loss = float(torch.stack(losses).float().mean())
        rate = self.rates[epoch]
        if not math.isfinite(mean_loss):
            raise ShipbenchError(_diverged(mean_loss, epoch, rate, self.recipe, self.compute))
        seconds = (time.perf_counter() - start) / share
        return EpochReport(epoch, self.recipe.epochs, mean_loss, rate, seconds, images, runs=share)

    def _train(self, epoch: int) -> EpochReport:
        start = time.perf_counter()
        losses = []
        batches = self.begin(epoch)
        parts = [part for batch in batches for part in batch.split(self.micro_batches.size)]
        with reading_ahead(self.epoch_inputs, parts) as self.reader:
            for chosen in batches:
                self.check()
                losses.append(self._step(chosen))
                if isinstance(self.model, FollowsSteps):
                    taken = epoch * len(batches) + len(losses)
                    self.model.after_step(taken - 1, self.recipe.epochs * len(batches))
        return self.report(epoch, losses, sum(map(len, batches)), start)

    def _step(self, chosen: Tensor) -> Tensor:
        """Take one step on a batch and return its loss, replayed if steps of this size are recorded."""
        loss = self._replayed(chosen) if len(chosen) == self.batch == self.micro_batches.size else None
        return self._computed(chosen) if loss is None else loss

    def _replayed(self, chosen: Tensor) -> Tensor | None:
        """Replay a step and return its loss; return None, and take no step, if steps are not recorded."""
        if self._captured_run is None:
            if self.recorder is None or not self._records:
                return None
            optimizer, batch = self.optimizer, self.batch
            self._captured_run = CapturedRun(self.model, optimizer, self.train, self.compute, batch, self.recorder)
        captured = self._captured_run
        loss = replayed(lambda: captured.take(chosen, self.reader), self.hooks.emitter.note)
        if loss is None:
            self._captured_run, self._records = None, False
        return loss

    def _computed(self, chosen: Tensor) -> Tensor:
        """Take one step that is not recorded; repeat it in smaller parts if memory runs out."""
        randomness = random_states(self.compute.device)
        loss = self._gradients(chosen, randomness)
        while loss is None:
            if self._captured_run is None:
                self.micro_batches.shrink(len(chosen))
            else:
                self._forget_recording()
            loss = self._gradients(chosen, randomness)
        self.optimizer.step()
        return loss

    def _forget_recording(self) -> None:
        """Free the memory of what was recorded, which the last batch of an epoch may lack; record nothing else."""
        self._has_replayed |= self.captured
        self._captured_run, self._records = None, False
        # Evaluations are recorded into the same memory.
        self._score.stop_recording()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.hooks.emitter.note("out of memory beside the recorded training step: continuing without recording")

    def _gradients(self, chosen: Tensor, randomness: dict[str, Tensor]) -> Tensor | None:
        """Compute the gradients of a batch's mean loss; return that loss, or None if memory ran out."""
        self.optimizer.zero_grad(set_to_none=True)
        # The caller retries outside this handler: the exception keeps the tensors of the failed pass alive.
        try:
            if self.micro_batches.size >= len(chosen):
                return self._backward(chosen, 1.0)
            total = torch.zeros((), device=self.compute.device)
            for start in range(0, len(chosen), self.micro_batches.size):
                part = chosen[start : start + self.micro_batches.size]
                set_random_states(randomness, self.compute.device)
                # The mean over the batch is the mean over its parts, weighted by their sizes.
                with PartOfBatch(start, len(part), len(chosen)):
                    total += self._backward(part, len(part) / len(chosen))
            return total
        except Exception as error:
            if not lacks_memory(error):
                raise
            return None

    def _backward(self, chosen: Tensor, weight: float) -> Tensor:
        with self.compute.autocast():
            labels = self.train.labels[sent(chosen, self.compute.device)]
            loss: Tensor = self.model.loss(self.reader.batch(chosen), labels)  # type: ignore[operator]
        if weight != 1.0:
            loss = loss * weight
        with self.compute.products():
            loss.backward()
        return loss.detach()

    def _with_evaluation(self, report: EpochReport) -> EpochReport:
        start = time.perf_counter()
        evaluation = _evaluate(self.model, self.evaluation, self._score, self.evaluation_batches)
        return replace(report, evaluation=evaluation, eval_seconds=time.perf_counter() - start)


def is_due(epoch: int, recipe: Recipe) -> bool:
    """Return whether an evaluation follows ``epoch``."""
    every = recipe.eval_every
    return epoch == recipe.epochs - 1 or (every > 0 and epoch % every == 0)


def _diverged(loss: float, epoch: int, rate: float, recipe: Recipe, compute: ComputeContext) -> str:
    settings = f"optimizer={recipe.optimizer}, lr={recipe.lr:g}, batch_size={recipe.batch_size}"
    where = f"in epoch {epoch + 1} at learning rate {rate:g} ({settings}, precision={compute.precision})"
    return f"the loss is {loss} {where}; try a lower lr"


def evaluate(
    model: nn.Module,
    inputs: Inputs,
    compute: ComputeContext,
    batch_size: int | None = None,
    capture: Capture = "auto",
) -> Evaluation:
    """Score a model on a split, in order; batches shrink if the device runs out of memory.

    ``capture`` is that of the recipe.
    """
    micro_batches = MicroBatches(batch_size or inference_batch(compute.device), "evaluation")
    recorder = recorder_of([model], capture, compute)
    score = CapturedForward(lambda batch: _logits(model, batch, compute), recorder, micro_batches.note)
    return _evaluate(model, inputs, score, micro_batches)


@torch.no_grad()
def _evaluate(model: nn.Module, inputs: Inputs, score: CapturedForward, micro_batches: MicroBatches) -> Evaluation:
    model.eval()
    # A recording would keep the prompts of the evaluation in which it was made. Where evaluations can be recorded, no
    # other shares prompts either, because matrix products round differently with them.
    sharing = contextlib.nullcontext() if can_record(inputs.labels.device) else evaluating(model)
    with sharing:
        parts = each_micro_batch(
            inputs, micro_batches, lambda batch, indices: Scores.of(score(batch), labels_of(inputs, indices))
        )
    return Scores.joined(parts).evaluation(inputs.labels)


def labels_of(inputs: Inputs, indices: Tensor) -> Tensor:
    """Return the labels of images with consecutive ``indices`` (CPU, long), without a copy from the host."""
    return inputs.labels[indices[0] : indices[-1] + 1]


def _logits(model: nn.Module, batch: Tensor, compute: ComputeContext) -> Tensor:
    with compute.autocast():
        return model(batch).float()
