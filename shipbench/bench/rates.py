"""The time and memory of a training step, and the rate of an evaluation, of every method in every precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from shipbench.bench.options import PartOptions
from shipbench.bench.timing import Timing
from shipbench.bench.workloads import Case, cases
from shipbench.hardware.memory import PeakMemory
from shipbench.recipe import Capture
from shipbench.training.history import Fit
from shipbench.training.loop import Hooks


def measure_rates(options: PartOptions) -> Iterator[dict[str, Any]]:
    """Yield rows for every method and precision, with recorded steps and without.

    ``training`` is in s per step, ``training_rate`` and ``evaluation_rate`` are in images/s.
    """
    for case in cases(options):
        yield from case.both_ways(partial(_rates, case))


def _rates(case: Case, capture: Capture) -> dict[str, Any]:
    options = case.options
    # The first epoch sets up libraries, the allocator and the optimiser, and records.
    work = case.workload(options.model.repeats + 1, capture, evaluates=True)
    memory = PeakMemory(case.compute.device)
    before, used = memory.bytes(), list[int]()

    def look() -> None:
        # In the first epoch alone: the others are timed.
        if len(used) < options.steps:
            used.append(memory.bytes())

    fit = work.fit(Hooks(check=look))
    training = step_timing(fit, options.steps)
    return {
        "captured": fit.captured,
        "training": asdict(training),
        "training_rate": options.model.batch_size / training.median,
        # Before the last step of the first epoch: an evaluation follows, of more images in a pass.
        "training_bytes": max(0, used[-1] - before),
        "evaluation_rate": work.evaluation_rate(fit),
        "final_loss": fit.epochs[-1].train_loss,
    }


def step_timing(fit: Fit, steps: int, runs: int = 1) -> Timing:
    """Return the seconds of a step of ``runs`` stacked runs, from the epochs of one of them after the first."""
    return Timing.over([report.train_seconds * runs / steps for report in fit.epochs[1:]])
