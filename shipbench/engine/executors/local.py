"""Execute runs on this machine, in this process or in several worker processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from shipbench.engine.executors.registry import EngineOptions
from shipbench.errors import InputError
from shipbench.events import Listener
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.planning.stacks import Stacking, in_stacks


class LocalExecutor:
    """Executes runs in this process, or in as many worker processes as the plan wants."""

    remote = False

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._jobs: int | None = None

    def check(self) -> None:
        """Refuse the address of a scheduler."""
        if self._options.scheduler is not None:
            raise InputError("--scheduler ADDRESS and --engine dask belong together; give both or neither")

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        """Attempt all runs, trained together where the options ask for it."""
        from shipbench.hardware.device import resolve_device

        jobs = self._jobs_for(plan, emit)
        stacking = self._options.stacking.on(resolve_device(runs[0].spec.device).type)
        stacks = stacks_for(runs, stacking, jobs)
        if jobs > 1:
            from shipbench.engine.executors.processes import execute_in_processes

            execute_in_processes(stacks, results, jobs, emit, measured=stacking.measured)
        else:
            from shipbench.engine.executors.inline import execute_inline

            execute_inline(stacks, results, emit, measured=stacking.measured)

    def _jobs_for(self, plan: Plan, emit: Listener) -> int:
        if self._jobs is None:
            from shipbench.engine.jobs import default_jobs

            # From all runs, not only those left: the number of threads changes rounding, and a continued plan must
            # repeat what the whole plan would have computed.
            self._jobs = min(self._options.jobs or default_jobs(plan, emit), len(plan.runs))
        return self._jobs


def stacks_for(runs: Sequence[PlannedRun], stacking: Stacking, jobs: int) -> list[tuple[PlannedRun, ...]]:
    """Group runs that may be trained together, in stacks small enough to occupy all ``jobs`` processes."""
    return in_stacks(runs, min(stacking.most, math.ceil(len(runs) / jobs)))
