"""The recorded training step of a stack of runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from shipbench.hardware.precision import ComputeContext
from shipbench.prompting import StepBuffer, StochasticDepth
from shipbench.training.captured import CapturedSteps
from shipbench.training.captured_run import gathers_on_device, in_place
from shipbench.training.graphs import Recorder
from shipbench.training.inputs import Inputs
from shipbench.training.stacked_pass import images_of, stacked_losses


class CapturedStack:
    """The steps of a stack on full batches of ``batch`` images per run.

    The step is recorded for the runs in training, and again once one of them has ended: its weights stay as they are.
    ``models`` are ``Stackable`` and ``StaticStep``, with equal stochastic depth, and draw nothing on the device: one
    recording advances one generator, and every run has its own random numbers.
    """

    def __init__(
        self,
        models: Sequence[Any],
        optimizers: Sequence[torch.optim.Optimizer],
        train: Inputs,
        compute: ComputeContext,
        batch: int,
        recorder: Recorder,
    ) -> None:
        self.models, self.optimizers, self.train, self.compute = models, optimizers, train, compute
        self.batch, self.recorder = batch, recorder
        depth: StochasticDepth | None = models[0].stochastic_depth
        scales = () if depth is None else depth.scales
        self.buffer = StepBuffer(len(models) * batch, scales, compute.device)
        self._gathers = gathers_on_device(train)
        self._gathered: Tensor | None = None
        self._active: tuple[int, ...] = ()
        self._steps: CapturedSteps | None = None

    def begin_epoch(self) -> None:
        """Prepare the steps of an epoch."""
        if self._steps is not None:
            self._steps.begin_epoch()

    def take(
        self,
        active: tuple[int, ...],
        views: Sequence[Inputs],
        batches: Sequence[Tensor],
        factors: Sequence[Tensor | None],
    ) -> Tensor:
        """Take a step of the runs with the indices ``active`` and return the losses (R,) of all runs.

        ``views``, ``batches`` (B,) and ``factors`` (L, 2, B) are those of every run. Raises ``torch.OutOfMemoryError``
        or ``NotRecordedError`` if the step cannot be recorded; weights, optimisers and torch's generators are then as
        before.
        """
        if not self._gathers:
            self._gathered = in_place(self._gathered, images_of(views, batches))
        drawn = [values for values in factors if values is not None]
        steps = self._steps_of(active)
        return steps.take(self._step, torch.cat(list(batches)), torch.cat(drawn, dim=2) if drawn else None)

    def _steps_of(self, active: tuple[int, ...]) -> CapturedSteps:
        if self._steps is None or self._active != active:
            # The device may still replay the steps of the runs that were active before.
            self.compute.wait()
            self._steps, self._active = None, active
            optimizers = [self.optimizers[index] for index in active]
            steps = len(self.train) // self.batch
            self._steps = CapturedSteps(self.buffer, self.models, optimizers, steps, self.recorder)
        return self._steps

    def _step(self) -> Tensor:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        indices, runs = self.buffer.indices, len(self.models)
        with self.compute.autocast(), ExitStack() as reading:
            for run, model in enumerate(self.models):
                if model.stochastic_depth is not None:
                    reading.enter_context(model.stochastic_depth.reading(self.buffer.of_run(run, runs)[1]))
            parts = [model.stack_input(self.batch, match=True) for model in self.models]
            images = self.train.batch(indices) if self._gathered is None else self._gathered
            losses = stacked_losses(self.models, parts, images, self.train.labels[indices])
        # No weight belongs to two runs, so the gradient of the sum holds the gradient of each loss.
        with self.compute.products():
            torch.stack(losses).sum().backward()
        for index in self._active:
            self.optimizers[index].step()
        return torch.stack([loss.detach() for loss in losses])
