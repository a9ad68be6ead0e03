"""The shares of data, model and optimiser in the time of an epoch and of an evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from shipbench.bench.timing import timed
from shipbench.hardware.precision import ComputeContext
from shipbench.recipe import Recipe
from shipbench.runs import preparation
from shipbench.training.inputs import Inputs
from shipbench.training.loop import evaluate, fit


@dataclass
class _Clock:
    """Seconds spent in named parts. Waiting for the device slows a GPU down: use it for shares, not for rates."""

    compute: ComputeContext
    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = 0.0

    def start(self) -> None:
        self.compute.wait()
        self._since = time.perf_counter()

    def stop(self, part: str) -> None:
        self.compute.wait()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - self._since


@dataclass(frozen=True)
class _TimedInputs:
    """Inputs whose synchronous batches are timed."""

    inputs: Inputs
    clock: _Clock

    @property
    def labels(self) -> Tensor:
        return self.inputs.labels

    @property
    def reads_ahead(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.inputs)

    def for_epoch(self, seed: int, epoch: int) -> _TimedInputs:
        return replace(self, inputs=self.inputs.for_epoch(seed, epoch))

    def batch(self, indices: Tensor) -> Tensor:
        self.clock.start()
        batch = self.inputs.batch(indices)
        self.clock.stop("data")
        return batch

    def read(self, indices: Tensor) -> Callable[[], Tensor]:
        return self.inputs.read(indices)


def training_shares(ready: preparation.Assembled, recipe: Recipe, compute: ComputeContext) -> dict[str, float]:
    """Train one epoch and return the shares of data, optimiser and model (the rest) in its time."""
    clock = _Clock(compute)
    hooks = (
        register_optimizer_step_pre_hook(lambda *_: clock.start()),
        register_optimizer_step_post_hook(lambda *_: clock.stop("optimiser")),
    )
    try:
        # A replay calls no hook.
        once = replace(recipe, epochs=1, capture="off")
        inputs = _TimedInputs(ready.train, clock)
        report = fit(ready.trained, inputs, ready.evaluation, once, compute, 0).epochs[0]
    finally:
        for hook in hooks:
            hook.remove()
    return _shares(clock.seconds, report.train_seconds, rest="model")


def evaluation_shares(ready: preparation.Assembled, compute: ComputeContext) -> dict[str, float]:
    """Evaluate once and return the shares of the model and of data (the rest: time spent waiting for it)."""
    clock, model = _Clock(compute), ready.built.model
    hooks = (
        model.register_forward_pre_hook(lambda *_: clock.start()),
        model.register_forward_hook(lambda *_: clock.stop("model")),
    )
    try:
        seconds, _ = timed(lambda: evaluate(model, ready.images, compute, capture="off"), compute)
    finally:
        for hook in hooks:
            hook.remove()
    return _shares(clock.seconds, seconds, rest="data")


def _shares(parts: Mapping[str, float], total: float, rest: str) -> dict[str, float]:
    shares = {part: seconds / total for part, seconds in parts.items()}
    return shares | {rest: 1 - sum(shares.values())}
