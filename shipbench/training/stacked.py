"""Train several runs together, with one pass over the frozen backbone for all of them.

Each run keeps its own weights, optimiser, order of images and random numbers, and draws the numbers that it would draw
alone. So its results equal those of ``shipbench.training.loop.fit`` up to rounding, and so do its snapshots.

Rounding depends on the shapes of the tensors. A stack therefore keeps its shape to the end: a run that has ended, has
failed or has a record already keeps its place, and its results are discarded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from shipbench.errors import ShipbenchError
from shipbench.hardware.precision import ComputeContext
from shipbench.prompting import StackInput
from shipbench.prompting.streams import PromptMemo
from shipbench.recipe import Recipe
from shipbench.training.captured import CapturedForward, recorder_of, replayed
from shipbench.training.captured_stack import CapturedStack
from shipbench.training.graphs import can_record
from shipbench.training.history import Evaluation, Fit
from shipbench.training.inputs import Inputs, sent
from shipbench.training.loop import Hooks, Trainer, is_due, labels_of
from shipbench.training.micro_batches import MicroBatches, each_micro_batch, inference_batch
from shipbench.training.scores import Scores
from shipbench.training.snapshot import Snapshot, random_states, set_random_states
from shipbench.training.stacked_pass import images_of, stacked_logits, stacked_losses


@dataclass(frozen=True)
class Member:
    """One run of a stack, with the arguments that ``fit`` takes for a single run.

    ``model`` is a ``Stackable`` module; all members share one backbone object. ``randomness`` is the state of torch's
    generators (``random_states``) in which the run's training begins. A ``placeholder`` is not trained: it only gives
    the stack its shape.
    """

    model: Any
    recipe: Recipe
    seed: int
    randomness: Mapping[str, Tensor]
    hooks: Hooks
    placeholder: bool = False


def fit_stack(
    members: Sequence[Member], train: Inputs, evaluation: Inputs, compute: ComputeContext
) -> Iterator[tuple[int, Fit | ShipbenchError]]:
    """Train members whose recipes differ only in learning rate and weight decay; yield (index, outcome) as each ends.

    The outcome is a member's ``Fit``, or the error that stopped it (a loss that is not finite, or one that its
    ``hooks.check`` raised); the other members are unaffected. Placeholders have no outcome. The seconds of an epoch and
    of an evaluation are divided equally among the members in training, whichever of them are evaluated. Raises
    ``torch.OutOfMemoryError`` if a step does not fit on the device.
    """
    runs = [_StackedRun(index, member, train, evaluation, compute) for index, member in enumerate(members)]
    stack = _Stack(runs, train, evaluation, compute)
    remaining = [run for run in runs if run.in_training]
    while remaining:
        stack.epoch()
        for run in remaining:
            if run.outcome is not None:
                yield run.index, run.outcome
        remaining = [run for run in remaining if run.in_training]


class _StackedRun:
    """A member in training: the trainer of a single run, its own random numbers, and its outcome once it has ended."""

    def __init__(self, index: int, member: Member, train: Inputs, evaluation: Inputs, compute: ComputeContext) -> None:
        self.index = index
        self.model = member.model
        self.placeholder = member.placeholder
        self.device = compute.device
        self.trainer = Trainer(member.model, train, evaluation, member.recipe, compute, member.seed, member.hooks)
        self.randomness = member.randomness
        self.batches: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.captured = False
        self.outcome: Fit | ShipbenchError | None = None
        self.epochs = self.trainer.resume()
        if self.epochs:
            self.randomness = random_states(self.device)

    @property
    def in_training(self) -> bool:
        return self.outcome is None and not self.placeholder

    def begin(self) -> None:
        """Prepare the next epoch; a run that has ended repeats its last one, and only the shape of it counts."""
        epoch = min(len(self.epochs), self.trainer.recipe.epochs - 1)
        self.batches, self.losses = self.trainer.begin(epoch), []

    def may_continue(self) -> bool:
        try:
            self.trainer.check()
        except ShipbenchError as error:
            self.outcome = error
        return self.outcome is None

    def part(self, images: int) -> StackInput:
        """Return the model's input to a training pass, drawn with this run's random numbers."""
        set_random_states(self.randomness, self.device)
        part: StackInput = self.model.stack_input(images, match=True)
        self.randomness = random_states(self.device)
        return part

    def factors(self, images: int) -> Tensor | None:
        """Return the stochastic-depth factors of a training pass, drawn with this run's random numbers."""
        depth = self.model.stochastic_depth
        if depth is None:
            return None
        set_random_states(self.randomness, self.device)
        factors: Tensor | None = depth.draw(images)
        self.randomness = random_states(self.device)
        return factors

    def report(self, start: float, share: int) -> None:
        """Append the report of the epoch that began at ``start``; a loss that is not finite ends the run."""
        images = sum(map(len, self.batches))
        try:
            self.epochs.append(self.trainer.report(len(self.epochs), self.losses, images, start, share))
        except ShipbenchError as error:
            self.outcome = error
            self._clear_weights()

    @property
    def is_due(self) -> bool:
        return self.in_training and is_due(len(self.epochs) - 1, self.trainer.recipe)

    def close_epoch(self) -> None:
        """Emit the epoch and offer a snapshot; end the run after its last epoch."""
        self.trainer.close_epoch(self.epochs, self._snapshot)
        if len(self.epochs) == self.trainer.recipe.epochs:
            self.outcome = Fit(self.epochs, self.trainer.micro_batch, self.captured)

    @torch.no_grad()
    def _clear_weights(self) -> None:
        """Set trained weights that may be NaN to zero, since the passes of the other runs continue through them."""
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.zero_()

    def _snapshot(self) -> Snapshot:
        set_random_states(self.randomness, self.device)
        return self.trainer.snapshot(self.epochs)


class _Logits:
    """Computes the logits of all models on one batch; a method of the stack would keep the stack alive.

    ``memo`` holds what the batches of an evaluation share.
    """

    def __init__(self, models: Sequence[Any], compute: ComputeContext) -> None:
        self.models, self.compute = models, compute
        self.memo: PromptMemo | None = None

    def __call__(self, images: Tensor) -> Tensor:
        with self.compute.autocast():
            return stacked_logits(self.models, images, self.memo)


class _Stack:
    """All runs of a stack, and the inputs and the device that they share."""

    def __init__(self, runs: Sequence[_StackedRun], train: Inputs, evaluation: Inputs, compute: ComputeContext) -> None:
        self.runs, self.train, self.evaluation, self.compute = runs, train, evaluation, compute
        self.models = [run.model for run in runs]
        self.note = partial(_note, runs)
        # One pass holds as many images as a single run's evaluation, counting an image once for each run.
        size = max(1, inference_batch(compute.device) // len(runs))
        self.micro_batches = MicroBatches(size, "evaluation", self.note)
        recorder = recorder_of(self.models, runs[0].trainer.recipe.capture, compute)
        self.logits = _Logits(self.models, compute)
        self.score = CapturedForward(self.logits, recorder, self.note)
        self.captured: CapturedStack | None = None
        if recorder is not None and not any(model.draws_on_device for model in self.models):
            optimizers = [run.trainer.optimizer for run in runs]
            batch = runs[0].trainer.batch
            self.captured = CapturedStack(self.models, optimizers, train, compute, batch, recorder)

    def epoch(self) -> None:
        """Train every run for its next epoch; set the ``outcome`` of runs that end."""
        start = time.perf_counter()
        for run in self.runs:
            run.begin()
        if self.captured is not None:
            self.captured.begin_epoch()
        active = [run for run in self.runs if run.in_training]
        for step in range(len(self.runs[0].batches)):
            active = [run for run in active if run.may_continue()]
            if not active:
                return
            self._step(active, step)
        for run in active:
            run.report(start, len(active))
        self._evaluate(active)
        for run in active:
            if run.in_training:
                run.close_epoch()

    def _step(self, active: Sequence[_StackedRun], step: int) -> None:
        batches = [run.batches[step] for run in self.runs]
        losses = self._replayed(active, batches)
        if losses is None:
            losses = self._computed(active, batches)
        for run in active:
            run.losses.append(losses[run.index])

    def _replayed(self, active: Sequence[_StackedRun], batches: Sequence[Tensor]) -> Tensor | None:
        """Replay a step and return the losses (R,); return None, and take no step, if steps are not recorded."""
        if self.captured is None or len(batches[0]) != self.captured.batch:
            return None
        before = [run.randomness for run in self.runs]
        losses = replayed(partial(self._take, self.captured, active, batches), self.note)
        if losses is not None:
            for run in active:
                run.captured = True
            return losses
        self.captured = None
        for run, randomness in zip(self.runs, before, strict=True):
            run.randomness = randomness
        return None

    def _take(self, captured: CapturedStack, active: Sequence[_StackedRun], batches: Sequence[Tensor]) -> Tensor:
        factors = [run.factors(len(batch)) for run, batch in zip(self.runs, batches, strict=True)]
        return captured.take(tuple(run.index for run in active), self._views(), batches, factors)

    def _computed(self, active: Sequence[_StackedRun], batches: Sequence[Tensor]) -> Tensor:
        """Take a step that is not recorded and return the losses (R,)."""
        for run in self.runs:
            run.trainer.optimizer.zero_grad(set_to_none=True)
        with self.compute.autocast():
            parts = [run.part(len(batch)) for run, batch in zip(self.runs, batches, strict=True)]
            labels = self.train.labels[sent(torch.cat(list(batches)), self.train.labels.device)]
            losses = stacked_losses(self.models, parts, images_of(self._views(), batches), labels)
        # No weight belongs to two runs, so the gradient of the sum holds the gradient of each loss.
        with self.compute.products():
            torch.stack(losses).sum().backward()
        for run in active:
            run.trainer.optimizer.step()
        return torch.stack([loss.detach() for loss in losses])

    def _views(self) -> list[Inputs]:
        return [run.trainer.epoch_inputs for run in self.runs]

    def _evaluate(self, active: Sequence[_StackedRun]) -> None:
        """Evaluate the runs that are due; all of ``active`` share the time, as they share that of the epoch."""
        if not any(run.is_due for run in active):
            return
        start = time.perf_counter()
        # As in the evaluation of a single run.
        self.logits.memo = None if can_record(self.compute.device) else PromptMemo()
        evaluations = _evaluate(self.models, self.evaluation, self.score, self.micro_batches)
        seconds = (time.perf_counter() - start) / len(active)
        for run in active:
            if run.in_training:
                evaluation = evaluations[run.index] if run.is_due else None
                run.epochs[-1] = replace(run.epochs[-1], evaluation=evaluation, eval_seconds=seconds)


def _note(runs: Sequence[_StackedRun], text: str) -> None:
    """Emit a note about the stack through its first run in training: those of placeholders are discarded."""
    run = next(run for run in runs if run.in_training)
    run.trainer.hooks.emitter.note(text)


@torch.no_grad()
def _evaluate(
    models: Sequence[Any], inputs: Inputs, score: CapturedForward, micro_batches: MicroBatches
) -> list[Evaluation]:
    """Score every model on the same split; each image is read and embedded once for all of them."""
    for model in models:
        model.eval()
    parts = each_micro_batch(
        inputs, micro_batches, lambda batch, indices: _scores(score(batch), labels_of(inputs, indices))
    )
    return [Scores.joined(of_run).evaluation(inputs.labels) for of_run in zip(*parts, strict=True)]


def _scores(logits: Tensor, labels: Tensor) -> list[Scores]:
    """Return the scores of every run, whose logits are (n, R, classes) together."""
    return [Scores.of(of_run, labels) for of_run in logits.unbind(dim=1)]
