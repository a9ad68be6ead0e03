"""The time and memory of a training step, and the rate of an evaluation, of every method in every precision."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from shipbench.bench.options import PartOptions
from shipbench.bench.shares import timed
from shipbench.bench.steps import Timing
from shipbench.bench.workloads import Case, cases, with_errors
from shipbench.hardware.memory import PeakMemory
from shipbench.training.history import Fit


def measure_rates(options: PartOptions) -> Iterator[dict[str, Any]]:
    """Yield a row for every method and precision: ``training`` in s per step, ``evaluation`` in images/s."""
    for case in cases(options):
        yield case.identity | with_errors(lambda case=case: _rates(case))  # type: ignore[misc]


def _rates(case: Case) -> dict[str, Any]:
    options = case.options
    memory = PeakMemory(case.compute.device)
    # The first epoch sets up libraries, the allocator and the optimiser.
    work = case.workload(epochs=options.model.repeats + 1)
    before = PeakMemory(case.compute.device).bytes()
    fit = work.fit()
    step_bytes = max(0, memory.bytes() - before)
    work.evaluate()
    evaluations = [timed(work.evaluate, case.compute)[0] for _ in range(options.model.repeats)]
    training = step_timing(fit, options.steps)
    return {
        "training": asdict(training),
        "training_rate": options.model.batch_size / training.median,
        "training_bytes": step_bytes,
        "evaluation_rate": options.end_to_end[1] / statistics.median(evaluations),
        "final_loss": fit.epochs[-1].train_loss,
    }


def step_timing(fit: Fit, steps: int, runs: int = 1) -> Timing:
    """Return the seconds of a step of ``runs`` stacked runs, from the epochs of one of them after the first."""
    seconds = [report.train_seconds * runs / steps for report in fit.epochs[1:]]
    return Timing(statistics.median(seconds), min(seconds), max(seconds))
