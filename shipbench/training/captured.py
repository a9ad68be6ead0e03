"""Training steps and evaluations that are recorded once and replayed.

What can be recorded: see ``StaticStep``. Recorded steps equal the others bit for bit, so whether steps were recorded is
not part of a run's identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from shipbench.errors import ShipbenchError, one_line
from shipbench.hardware.memory import lacks_memory
from shipbench.hardware.precision import ComputeContext
from shipbench.prompting import StepBuffer, StochasticDepth
from shipbench.recipe import Capture
from shipbench.training.graphs import Recorder, Recording, new_recorder
from shipbench.training.snapshot import random_states, set_random_states

# Where timm's LeViT, TinyViT, EfficientFormer and EfficientViT keep biases from one training to the next. A recording
# would go on reading the first ones.
_CACHE = "attention_bias_cache"


@runtime_checkable
class StaticStep(Protocol):
    """A model whose passes can be recorded on a device with CUDA graphs.

    Passes with and without gradients have the same operations and shapes for every batch of one size, and read no value
    back. Random numbers are drawn in training alone: the factors of ``stochastic_depth``, None without any, on the host
    before the step, and all others on the device, from torch's default generator. A CUDA graph advances that generator
    in every replay, as the step itself would.
    """

    @property
    def draws_on_device(self) -> bool:
        """Whether a training step draws random numbers on the device, such as those of dropout."""
        ...

    @property
    def stochastic_depth(self) -> StochasticDepth | None:
        """The source of the factors that a training step reads."""
        ...


@runtime_checkable
class FollowsSteps(Protocol):
    """A model that changes with the progress of training, as one whose ranks shrink; it is not recorded."""

    def after_step(self, step: int, steps: int) -> None:
        """Follow optimiser step ``step``, counted from 0, of ``steps`` in the run; its gradients are still there."""
        ...


def recorder_of(models: Sequence[nn.Module], capture: Capture, compute: ComputeContext) -> Recorder | None:
    """Return a recorder for ``models`` on one device, or None if their passes are not to be recorded there."""
    static = all(isinstance(model, StaticStep) and not isinstance(model, FollowsSteps) for model in models)
    cached = any(hasattr(module, _CACHE) for model in models for module in model.modules())
    return new_recorder(compute.device) if static and not cached and capture == "auto" else None


class NotRecordedError(ShipbenchError):
    """Work that cannot be recorded on this device."""


class CapturedSteps:
    """The full-size training steps of R runs: the first is recorded, and all of them are replayed.

    A step computes gradients on the images ``buffer.indices``, updates the weights of ``models`` with ``optimizers``,
    and returns the losses (R,) without gradients. It is an argument of ``take`` and is not kept: a method of the owner
    of this object would close a cycle of references, which keeps a finished run's memory until garbage is collected.
    ``steps`` is the largest number of steps in an epoch.
    """

    def __init__(
        self,
        buffer: StepBuffer,
        models: Sequence[nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        steps: int,
        recorder: Recorder,
    ) -> None:
        self.buffer, self.models, self.optimizers = buffer, models, optimizers
        self.recorder = recorder
        device = buffer.indices.device
        self.losses = torch.zeros(steps, len(models), device=device)
        self._rows = torch.arange(steps, device=device).unsqueeze(1)
        self._row = torch.zeros((), dtype=torch.long, device=device)
        self._taken = 0
        self._recording: Recording | None = None

    @property
    def recorded(self) -> bool:
        """Whether the step has been recorded."""
        return self._recording is not None

    def begin_epoch(self) -> None:
        """Write the losses of the steps that follow from the first row on."""
        self._row.zero_()
        self._taken = 0

    def take(self, step: Callable[[], Tensor], indices: Tensor, factors: Tensor | None) -> Tensor:
        """Queue ``step`` on images ``indices`` (R x B) with stochastic-depth ``factors`` (L, 2, R x B), on the CPU.

        Returns a view of its losses (R,), valid to the end of the epoch. Raises ``torch.OutOfMemoryError`` or
        ``NotRecordedError`` if the step cannot be recorded; weights, optimisers and random numbers are then as before.
        """
        self.buffer.fill(indices, factors)
        if self._recording is None:
            self._recording = self._record(step)
        self._recording.replay()
        self._taken += 1
        return self.losses[self._taken - 1]

    def _record(self, step: Callable[[], Tensor]) -> Recording:
        def work() -> None:
            losses = step()
            self.losses.copy_(torch.where(self._rows == self._row, losses, self.losses))
            self._row.add_(1)

        with leaving_no_trace(self.models, self.optimizers, [self.losses, self._row]):
            self.recorder.warm_up(work)
            return recorded(self.recorder, work)


def replayed(take: Callable[[], Tensor], note: Callable[[str], None]) -> Tensor | None:
    """Take a step; if it cannot be recorded, give ``note`` the reason and return None."""
    # The caller computes the step outside these handlers: an exception keeps the tensors of the failed step alive.
    try:
        return take()
    except NotRecordedError as error:
        failure = one_line(error)
    except Exception as error:
        if not lacks_memory(error):
            raise
        failure = "memory ran out while the first one was recorded"
    note(f"training steps are not recorded: {failure}")
    return None


class CapturedForward:
    """A function of a batch that is recorded for each shape of batch when that comes a second time, and then replayed.

    The first batch of a shape is computed as it is: that sets up libraries, and batches of a rare shape are not worth
    recording. If recording fails, ``note`` gets a sentence and nothing is recorded from then on.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], recorder: Recorder | None, note: Callable[[str], None]
    ) -> None:
        self.function, self.recorder, self.note = function, recorder, note
        self._computed_shapes: set[tuple[object, ...]] = set()
        self._recordings: dict[tuple[object, ...], tuple[Tensor, Tensor, Recording]] = {}

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the function of a batch."""
        shape = (*batch.shape, batch.dtype)
        if self.recorder is None or shape not in self._computed_shapes:
            self._computed_shapes.add(shape)
            return self.function(batch)
        if shape not in self._recordings:
            try:
                self._recordings[shape] = self._record(batch, self.recorder)
            except NotRecordedError as error:
                self.note(f"evaluation is not recorded: {error}")
                self.recorder = None
        if self.recorder is None:
            return self.function(batch)
        inputs, output, recording = self._recordings[shape]
        inputs.copy_(batch)
        recording.replay()
        # The next replay, of this recording or another, may write to the same memory.
        return output.clone()

    def stop_recording(self) -> None:
        """Drop what was recorded, whose memory becomes free, and record nothing from now on."""
        self._recordings.clear()
        self.recorder = None

    def _record(self, batch: Tensor, recorder: Recorder) -> tuple[Tensor, Tensor, Recording]:
        inputs, outputs = batch.clone(), list[Tensor]()
        recording = recorded(recorder, lambda: outputs.append(self.function(inputs)))
        return inputs, outputs[0], recording


def recorded(recorder: Recorder, work: Callable[[], object]) -> Recording:
    """Record ``work``; raise ``torch.OutOfMemoryError`` if memory runs out, ``NotRecordedError`` for other failures."""
    try:
        return recorder.record(work)
    except Exception as error:
        # The end of a recording that has failed raises an error of its own.
        if _ran_out_of_memory(error):
            raise torch.OutOfMemoryError(str(error)) from None
        raise NotRecordedError(one_line(error)) from error


def _ran_out_of_memory(error: BaseException | None) -> bool:
    while error is not None and not lacks_memory(error):
        error = error.__cause__ or error.__context__
    return error is not None


@contextmanager
def leaving_no_trace(
    models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer], others: Sequence[Tensor]
) -> Iterator[None]:
    """Restore trained weights, buffers, optimisers, ``others`` and random generators after the block, in place.

    The state that an optimiser creates in the block is kept, filled with zeros: that is how AdamW's begins, and how
    SGD's momentum begins up to the sign of zeros.
    """
    kept = [*others, *(tensor for model in models for tensor in _changing(model))]
    kept += [value for optimizer in optimizers for value in _state_of(optimizer)]
    copies = [tensor.detach().clone() for tensor in kept]
    randomness = random_states(kept[0].device)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(kept, copies, strict=True):
                tensor.copy_(copy)
            before = set(map(id, kept))
            for value in (value for optimizer in optimizers for value in _state_of(optimizer)):
                if id(value) not in before:
                    value.zero_()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        set_random_states(randomness, kept[0].device)


def _changing(model: nn.Module) -> Iterator[Tensor]:
    yield from (parameter for parameter in model.parameters() if parameter.requires_grad)
    yield from model.buffers()


def _state_of(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
