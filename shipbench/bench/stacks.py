"""The time of a training step of several runs that share passes over the frozen backbone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from shipbench.backbones import input_size_of
from shipbench.bench.options import PartOptions
from shipbench.bench.rates import step_timing
from shipbench.bench.workloads import STRICT, Case, cases, random_images
from shipbench.errors import ShipbenchError
from shipbench.hardware.memory import PeakMemory
from shipbench.methods import get_method
from shipbench.recipe import Capture
from shipbench.training.history import Fit
from shipbench.training.loop import Hooks
from shipbench.training.snapshot import random_states
from shipbench.training.stacked import Member, fit_stack


def measure_stacks(options: PartOptions) -> Iterator[dict[str, Any]]:
    """Yield rows for SHIP in every precision and size of stack: ``training`` in s per step of the whole stack."""
    methods = tuple(name for name in options.methods if name == "ship" and get_method(name).stackable)
    for case in cases(options, methods):
        for runs in options.stacks:
            yield from case.both_ways(partial(_stack, case, runs), runs=runs)


def _stack(case: Case, runs: int, capture: Capture) -> dict[str, Any]:
    options = case.options
    recipe = replace(case.recipe, epochs=options.model.repeats + 1, capture=capture)
    backbone = copy.deepcopy(case.backbone)
    hooks = Hooks(STRICT)
    members = [
        Member(case.model(backbone), replace(recipe, lr=1e-3 / (1 + run)), run, random_states(options.device), hooks)
        for run in range(runs)
    ]
    evaluation = random_images(8, input_size_of(backbone)[0], options, resident=False)
    memory = PeakMemory(options.device)
    before = PeakMemory(options.device).bytes()
    fits = [_finished(outcome) for _, outcome in fit_stack(members, case.images.train, evaluation, case.compute)]
    training = step_timing(fits[0], options.steps, runs)
    return {
        "captured": fits[0].captured,
        "training": asdict(training),
        "training_rate": runs * options.model.batch_size / training.median,
        "training_bytes": max(0, memory.bytes() - before),
    }


def _finished(outcome: Fit | ShipbenchError) -> Fit:
    if isinstance(outcome, ShipbenchError):
        raise outcome
    return outcome
