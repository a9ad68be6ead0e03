"""The recorded training step of one run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from shipbench.hardware.precision import ComputeContext
from shipbench.prompting import StepBuffer, StochasticDepth
from shipbench.training.captured import CapturedSteps
from shipbench.training.graphs import Recorder
from shipbench.training.inputs import Inputs
from shipbench.training.prefetch import BatchReader
from shipbench.training.snapshot import random_states, set_random_states


class CapturedRun:
    """The steps of one run on full batches of ``batch`` images: gather, forward, backward and update, in one recording.

    Where images are streamed or augmented, the batch is gathered before the replay instead. ``model`` is a
    ``StaticStep``.
    """

    def __init__(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        train: Inputs,
        compute: ComputeContext,
        batch: int,
        recorder: Recorder,
    ) -> None:
        self.model, self.optimizer, self.train, self.compute = model, optimizer, train, compute
        depth: StochasticDepth | None = model.stochastic_depth
        self.depth, self.batch = depth, batch
        self.buffer = StepBuffer(batch, () if depth is None else depth.scales, compute.device)
        self._gathers = gathers_on_device(train)
        self._gathered: Tensor | None = None
        self._steps = CapturedSteps(self.buffer, [model], [optimizer], len(train) // batch, recorder)

    @property
    def recorded(self) -> bool:
        """Whether the step has been recorded."""
        return self._steps.recorded

    def begin_epoch(self) -> None:
        """Prepare the steps of an epoch."""
        self._steps.begin_epoch()

    def take(self, chosen: Tensor, reader: BatchReader) -> Tensor:
        """Take a step on the images ``chosen`` and return its loss, a scalar.

        Raises ``torch.OutOfMemoryError`` or ``NotRecordedError`` if the step cannot be recorded; weights, the optimiser
        and random numbers are then as before.
        """
        before = None if self.recorded else random_states(self.compute.device)
        try:
            if not self._gathers:
                self._gathered = in_place(self._gathered, reader.batch(chosen))
            factors = None if self.depth is None else self.depth.draw(self.batch)
            return self._steps.take(self._step, chosen, factors)[0]
        except Exception:
            if before is not None:
                set_random_states(before, self.compute.device)
            raise

    def _reading(self) -> AbstractContextManager[None]:
        return nullcontext() if self.depth is None else self.depth.reading(self.buffer.factors)

    def _step(self) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        indices = self.buffer.indices
        with self.compute.autocast(), self._reading():
            batch = self.train.batch(indices) if self._gathered is None else self._gathered
            loss: Tensor = self.model.loss(batch, self.train.labels[indices])
        with self.compute.products():
            loss.backward()
        self.optimizer.step()
        return loss.detach().unsqueeze(0)


def in_place(earlier: Tensor | None, batch: Tensor) -> Tensor:
    """Return a copy of ``batch`` where the ``earlier`` one lies, if there is one: a recorded step reads it there."""
    return batch.clone() if earlier is None else earlier.copy_(batch)


def gathers_on_device(inputs: Inputs) -> bool:
    """Return whether a batch depends on nothing but its indices on the device, in every epoch."""
    return not inputs.reads_ahead and inputs.for_epoch(0, 0) is inputs
