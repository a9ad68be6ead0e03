"""Several runs trained together: one pass over the frozen backbone for all of them, everything else their own.

Every run has its weights, its optimiser, its order of images and its random numbers, and draws what it would draw
alone; so its results are those of ``shipbench.training.loop.fit`` up to rounding, and so are its snapshots.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from shipbench.errors import ShipbenchError
from shipbench.hardware.precision import ComputeContext
from shipbench.prompting import StackInput, embed, stacked_forward
from shipbench.prompting.streams import PromptMemo
from shipbench.recipe import Recipe
from shipbench.training.history import EpochReport, Evaluation, Fit
from shipbench.training.inputs import Inputs
from shipbench.training.loop import Hooks, Trainer, is_due, score_logits
from shipbench.training.micro_batches import MicroBatches, in_portions, inference_batch
from shipbench.training.prefetch import Prefetcher
from shipbench.training.snapshot import Snapshot, random_states, set_random_states

_WARM_UP_STEPS = 2
_TIMED_STEPS = 5


@dataclass(frozen=True)
class Member:
    """One run of a stack, with what ``fit`` takes for a single run.

    ``model`` is a ``Stackable`` module; all members have the same backbone object. ``randomness`` is the state of
    torch's generators (``random_states``) in which the run's training begins.
    """

    model: Any
    recipe: Recipe
    seed: int
    randomness: Mapping[str, Tensor]
    on_epoch: Callable[[EpochReport], None]
    hooks: Hooks


def fit_stack(
    members: Sequence[Member], train: Inputs, evaluation: Inputs, compute: ComputeContext
) -> Iterator[tuple[int, Fit | ShipbenchError]]:
    """Train members whose recipes differ in rate and weight decay alone; yield each one's index and end when it comes.

    A member's end is its ``Fit``, or the error that stopped it (a loss that is not finite, or what its
    ``hooks.check`` raised), which the others do not notice. The seconds of an epoch and of an evaluation are shared
    equally among the members that took part. Raises ``torch.OutOfMemoryError`` if a step does not fit on the device.
    """
    lanes = [_StackedRun(index, member, train, evaluation, compute) for index, member in enumerate(members)]
    # As many images in a pass as an evaluation alone has, counted once for every run that looks at them.
    portions = MicroBatches(max(1, inference_batch(compute.device) // len(members)), "evaluation", members[0].hooks.say)
    stack = _Stack(train, evaluation, compute, portions)
    while lanes:
        stack.epoch(lanes)
        for lane in lanes:
            if lane.end is not None:
                yield lane.index, lane.end
        lanes = [lane for lane in lanes if lane.end is None]


class _StackedRun:
    """A member in training: the trainer of a single run, its own random numbers, and how it ended, if it did."""

    def __init__(self, index: int, member: Member, train: Inputs, evaluation: Inputs, compute: ComputeContext) -> None:
        self.index = index
        self.model = member.model
        self.on_epoch, self.hooks = member.on_epoch, member.hooks
        self.device = compute.device
        self.trainer = Trainer(member.model, train, evaluation, member.recipe, compute, member.seed, member.hooks)
        self.randomness = member.randomness
        self.epochs: list[EpochReport] = []
        self.batches: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.end: Fit | ShipbenchError | None = None
        if member.hooks.start is not None:
            self.epochs = self.trainer.resume(member.hooks.start)
            self.randomness = random_states(self.device)

    def begin(self) -> None:
        self.batches, self.losses = self.trainer.begin(len(self.epochs)), []

    def may_go_on(self) -> bool:
        try:
            self.hooks.check()
        except ShipbenchError as error:
            self.end = error
        return self.end is None

    def part(self, images: int) -> StackInput:
        """Return the model's part of a training pass, with random numbers of this run's own."""
        set_random_states(self.randomness, self.device)
        part: StackInput = self.model.stack_input(images, match=True)
        self.randomness = random_states(self.device)
        return part

    def report(self, start: float, share: int) -> None:
        """Take down the epoch that began at ``start``; a loss that is not finite ends the run."""
        images = sum(map(len, self.batches))
        try:
            self.epochs.append(self.trainer.report(len(self.epochs), self.losses, images, start, share))
        except ShipbenchError as error:
            self.end = error

    @property
    def is_due(self) -> bool:
        return self.end is None and is_due(len(self.epochs) - 1, self.trainer.recipe)

    def close(self) -> None:
        """Tell of the epoch; offer a snapshot after it, or end with the last one."""
        self.on_epoch(self.epochs[-1])
        if len(self.epochs) < self.trainer.recipe.epochs:
            self.hooks.keep(self._snapshot)
        else:
            self.end = Fit(self.epochs, self.trainer.micro_batch)

    def _snapshot(self) -> Snapshot:
        set_random_states(self.randomness, self.device)
        return self.trainer.snapshot(self.epochs)


@dataclass(frozen=True)
class _Stack:
    """What all lanes share; which of them are trained is said with every call."""

    train: Inputs
    evaluation: Inputs
    compute: ComputeContext
    portions: MicroBatches

    def epoch(self, lanes: Sequence[_StackedRun]) -> None:
        """Train every lane for an epoch of its own; lanes that end on the way have their ``end`` set."""
        start = time.perf_counter()
        for lane in lanes:
            lane.begin()
        going = list(lanes)
        for step in range(len(lanes[0].batches)):
            going = [lane for lane in going if lane.may_go_on()]
            if not going:
                return
            self._step(going, step)
        for lane in going:
            lane.report(start, len(going))
        self._evaluate([lane for lane in going if lane.is_due])
        for lane in going:
            if lane.end is None:
                lane.close()

    def _step(self, lanes: Sequence[_StackedRun], step: int) -> None:
        for lane in lanes:
            lane.trainer.optimizer.zero_grad(set_to_none=True)
        chosen = [lane.batches[step] for lane in lanes]
        with self.compute.autocast():
            parts = [lane.part(len(own)) for lane, own in zip(lanes, chosen, strict=True)]
            losses = stacked_losses([lane.model for lane in lanes], parts, self.train, chosen)
        # No weight belongs to two runs: the gradient of the sum is every run's own.
        torch.stack(losses).sum().backward()
        for lane, loss in zip(lanes, losses, strict=True):
            lane.trainer.optimizer.step()
            lane.losses.append(loss.detach())

    def _evaluate(self, lanes: Sequence[_StackedRun]) -> None:
        if not lanes:
            return
        start = time.perf_counter()
        scores = evaluate_stack([lane.model for lane in lanes], self.evaluation, self.compute, self.portions)
        seconds = (time.perf_counter() - start) / len(lanes)
        for lane, found in zip(lanes, scores, strict=True):
            lane.epochs[-1] = replace(lane.epochs[-1], evaluation=found, eval_seconds=seconds)


def stacked_losses(
    models: Sequence[Any], parts: Sequence[StackInput], train: Inputs, chosen: Sequence[Tensor]
) -> list[Tensor]:
    """Return every model's loss on its own images, ``chosen`` (B,) from ``train``, through one pass."""
    indices = torch.cat(list(chosen))
    backbone = models[0].backbone
    labels = train.labels[indices.to(train.labels.device, non_blocking=True)].chunk(len(models))
    outputs = stacked_forward(backbone, embed(backbone, train.batch(indices)), parts)
    return [model.loss_of(*own) for model, *own in zip(models, outputs, labels, strict=True)]


@torch.no_grad()
def evaluate_stack(
    models: Sequence[Any], inputs: Inputs, compute: ComputeContext, portions: MicroBatches
) -> list[Evaluation]:
    """Score every model on the same split; each image is read and embedded once for all of them."""
    memo, backbone = PromptMemo(), models[0].backbone
    for model in models:
        model.eval()

    def score(images: Tensor) -> Tensor:
        with compute.autocast():
            tokens = embed(backbone, images).repeat(len(models), 1, 1)
            outputs = stacked_forward(backbone, tokens, [m.stack_input(len(images), match=False) for m in models], memo)
            logits = [model.logits_of(output).float() for model, output in zip(models, outputs, strict=True)]
        return torch.stack(logits, dim=1)

    with Prefetcher(inputs) as ahead:
        logits = in_portions(len(inputs), portions, lambda chunk: score(ahead.batch(chunk)))
    return [score_logits(own, inputs.labels) for own in logits.unbind(dim=1)]


def seconds_per_step(members: Sequence[Member], train: Inputs, compute: ComputeContext) -> tuple[float, float]:
    """Measure a training step of all members: in seconds as a stack, and one after the other.

    Nothing but torch's global random numbers is different afterwards.
    """
    models = [member.model.train() for member in members]
    chosen = torch.arange(min(members[0].recipe.batch_size, len(train)))

    def stacked() -> None:
        with compute.autocast():
            parts = [model.stack_input(len(chosen), match=True) for model in models]
            losses = stacked_losses(models, parts, train, [chosen] * len(models))
        torch.stack(losses).sum().backward()

    def apart() -> None:
        for model in models:
            with compute.autocast():
                labels = train.labels[chosen.to(train.labels.device, non_blocking=True)]
                loss = model.loss(train.batch(chosen), labels)
            loss.backward()

    found = _seconds(stacked, compute), _seconds(apart, compute)
    for model in models:
        model.zero_grad(set_to_none=True)
    return found


def _seconds(work: Callable[[], None], compute: ComputeContext) -> float:
    for _ in range(_WARM_UP_STEPS):
        work()
    compute.wait()
    start = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        work()
    compute.wait()
    return (time.perf_counter() - start) / _TIMED_STEPS
