"""Execute runs on this machine, in this process or in several worker processes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from shipbench.engine.executors.registry import EngineOptions, refuse_cluster_options, refuse_scheduler
from shipbench.errors import check_all
from shipbench.events import Listener, Note
from shipbench.hardware.device import devices_for_workers, resolve_device
from shipbench.hardware.memory import device_memory
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.planning.stacks import Fits, Stack, Stacking, stacks_of_plan

if TYPE_CHECKING:
    import torch

    from shipbench.engine.jobs import Division


class LocalExecutor:
    """Executes runs in this process, or in as many worker processes as the plan wants."""

    remote = False

    def __init__(self, options: EngineOptions) -> None:
        check_all((partial(refuse_cluster_options, "local", options), partial(refuse_scheduler, options)))
        self._options = options
        self._division: Division | None = None

    def check(self) -> None:
        """Pass: this machine is always available."""

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        """Attempt all runs, trained together where the options ask for it.

        Threads and stacks follow from the whole plan, because both change rounding: a continued plan repeats what the
        whole plan would have computed.
        """
        division = self._divided(plan, emit)
        stacks = self._stacks(runs, plan, division.jobs)
        if division.jobs == 1:
            from shipbench.engine.executors.inline import execute_inline

            execute_inline(stacks, results, emit, division.threads)
            return
        from shipbench.engine.executors.processes import execute_in_processes

        execute_in_processes(stacks, results, self._workers(plan, division.jobs, emit), division.threads, emit)

    def _divided(self, plan: Plan, emit: Listener) -> Division:
        """Return how the plan divides the machine; say once how many runs that means."""
        from shipbench.engine.jobs import divide

        if self._division is None:
            self._division = divide(plan, self._options.jobs)
            if self._division.jobs > 1 and self._options.jobs is None:
                emit(Note(None, f"{self._division.text} (change it with --jobs N)"))
        return self._division

    def _workers(self, plan: Plan, jobs: int, emit: Listener) -> int:
        """Return the number of workers to start: fewer than ``jobs`` where memory is short now."""
        from shipbench.engine.jobs import jobs_now

        if self._options.jobs is not None or resolve_device(plan.runs[0].spec.device).type != "cpu":
            return jobs
        workers = jobs_now(plan.runs, jobs)
        if workers < jobs:
            emit(Note(None, f"free memory holds {workers} of {jobs} runs at a time"))
        return workers

    def _stacks(self, runs: Sequence[PlannedRun], plan: Plan, jobs: int) -> list[Stack]:
        device = resolve_device(runs[0].spec.device)
        stacking = self._options.stacking.on(device.type)
        fits = fits_on(device, jobs) if stacking.automatic else None
        return stacks_of_plan(runs, plan.runs, most_in_a_stack(stacking, len(plan.runs), jobs), fits)


def most_in_a_stack(stacking: Stacking, runs: int, jobs: int) -> int:
    """Return the largest number of runs in a stack with which ``runs`` runs still occupy all ``jobs`` processes."""
    return min(stacking.most, math.ceil(runs / jobs))


def fits_on(device: torch.device, jobs: int) -> Fits:
    """Return a function that estimates whether a number of runs like a given one fit into a CUDA device's memory.

    If several of ``jobs`` processes use the same device, each has its part of the memory.
    """
    from shipbench.engine.cost import MEMORY_SHARE, estimated_bytes

    processes = max(Counter(devices_for_workers(device, jobs)).values())
    memory = MEMORY_SHARE * device_memory(device) / processes

    def fits(run: PlannedRun, count: int) -> bool:
        in_bf16 = (run.precision or run.spec.precision) == "bf16"
        return estimated_bytes(run, count, 2 if in_bf16 else 4) <= memory

    return fits
