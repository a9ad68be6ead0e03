"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from shipbench.hardware.precision import ComputeContext
from shipbench.runs import preparation
from shipbench.training.inputs import Inputs
from shipbench.training.loop import evaluate, fit


@dataclass
class _Clock:
    """Seconds spent in named parts, each waited for, which slows a GPU down: for shares, never for rates."""

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
    """Inputs whose batches are timed."""

    inputs: Inputs
    clock: _Clock

    @property
    def labels(self) -> Tensor:
        return self.inputs.labels

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Tensor) -> Tensor:
        self.clock.start()
        batch = self.inputs.batch(indices)
        self.clock.stop("data")
        return batch

    def read(self, indices: Tensor) -> Callable[[], Tensor]:
        return self.inputs.read(indices)


def training_shares(ready: preparation.Assembled, recipe: Any, compute: ComputeContext) -> dict[str, float]:
    """Train one epoch and return the seconds spent on each part of a step."""
    clock = _Clock(compute)
    hooks = (
        register_optimizer_step_pre_hook(lambda *_: clock.start()),
        register_optimizer_step_post_hook(lambda *_: clock.stop("optimiser")),
    )
    try:
        once = replace(recipe, epochs=1)
        timed = _TimedInputs(ready.train, clock)
        report = fit(ready.trained, timed, ready.evaluation, once, compute, 0, lambda _: None).epochs[0]
    finally:
        for hook in hooks:
            hook.remove()
    return _shares(clock.seconds, report.train_seconds, rest="model")


def evaluation_shares(ready: preparation.Assembled, compute: ComputeContext) -> dict[str, float]:
    """Return what the model takes of a pass; the rest of it is data that the model had to wait for."""
    clock, model = _Clock(compute), ready.built.model
    hooks = (
        model.register_forward_pre_hook(lambda *_: clock.start()),
        model.register_forward_hook(lambda *_: clock.stop("model")),
    )
    try:
        seconds, _ = seconds_per_run(lambda: evaluate(model, ready.images, compute), compute)
    finally:
        for hook in hooks:
            hook.remove()
    return _shares(clock.seconds, seconds, rest="data")


def _shares(parts: Mapping[str, float], total: float, rest: str) -> dict[str, float]:
    shares = {part: seconds / total for part, seconds in parts.items()}
    return shares | {rest: 1 - sum(shares.values())}


def seconds_per_run(work: Callable[[], Any], compute: ComputeContext | None = None) -> tuple[float, Any]:
    """Return how long ``work`` took, with what it gave its device to do, if it has one, and what it returned."""
    start = time.perf_counter()
    result = work()
    if compute is not None:
        compute.wait()
    return time.perf_counter() - start, result
