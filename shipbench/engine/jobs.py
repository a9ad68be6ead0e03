"""Divide a machine among the runs of a plan: how many execute in parallel, and with how many threads each.

The number of threads changes how sums are rounded. So it follows from the whole plan and the hardware by a fixed rule,
never from a measurement, from the runs that are left to do, or from what else the machine is doing.
"""

from __future__ import annotations

import heapq
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import joblib
import torch

from shipbench.counts import counted
from shipbench.engine.cost import MEMORY_SHARE, estimated_bytes, estimated_flops
from shipbench.hardware.device import resolve_device
from shipbench.hardware.memory import available_memory, total_memory
from shipbench.planning.plan import Plan, PlannedRun

# About five minutes' work of two cores at 2.5 GHz; for less, starting processes would take longer than it can save.
_WORTH_FLOPS = 3e13
# With twice the threads, a run of the demo suite was 1.7 to 2.0 times as fast on two cores.
_EXPONENT = math.log2(1.8)
# More parallel runs than necessary only take memory.
_TOLERANCE = 1.1


@dataclass(frozen=True)
class Division:
    """How a plan divides the machine: at most ``jobs`` runs in parallel, each with ``threads`` threads."""

    jobs: int
    threads: int

    @property
    def text(self) -> str:
        """A line for the user, such as "2 runs at a time with 1 thread each"."""
        return f"{self.jobs} runs at a time with {counted(self.threads, 'thread')} each"


def divide(plan: Plan, jobs: int | None) -> Division:
    """Return how a plan divides this machine, in ``jobs`` parts or, if that is None, by a rule for the device.

    On CUDA, the rule is one run per device. On a CPU, it is the number with which the plan would end first if twice the
    threads made a run 1.8 times as fast; elsewhere, and for a few minutes' work, it is one run after the other.
    """
    runs = plan.runs
    if jobs is None:
        device = resolve_device(runs[0].spec.device)
        if device.type == "cuda":
            jobs = torch.cuda.device_count() if device.index is None else 1
        else:
            jobs = jobs_on_cpu(runs) if device.type == "cpu" else 1
    jobs = min(jobs, len(runs))
    return Division(jobs, threads_per_job(jobs))


def usable_cores() -> int:
    """Return ``OMP_NUM_THREADS`` if it is set, else the number of cores that torch would use and this process may."""
    threads = torch.get_num_threads()
    return threads if os.environ.get("OMP_NUM_THREADS") else min(threads, joblib.cpu_count())


def threads_per_job(jobs: int) -> int:
    """Return the number of threads of each of ``jobs`` workers."""
    return max(1, usable_cores() // jobs)


def jobs_on_cpu(runs: Sequence[PlannedRun]) -> int:
    """Return the number of parallel runs with which the plan of ``runs`` ends first by the fixed rule.

    A single run and a few minutes' work get 1. All runs together take at most 80 % of the machine's memory.
    """
    cores = usable_cores()
    if cores == 1 or len(runs) == 1:
        return 1
    flops = [estimated_flops(run) for run in runs]
    if sum(flops) < _WORTH_FLOPS:
        return 1
    most = _jobs_within(total_memory(), runs)
    return choose({jobs: relative_rate(jobs, cores) for jobs in candidates(cores) if jobs <= most}, flops)


def jobs_now(runs: Sequence[PlannedRun], jobs: int) -> int:
    """Return how many of ``jobs`` workers fit into the memory that is free now; the threads of each stay the same."""
    return min(jobs, _jobs_within(available_memory(), runs))


def _jobs_within(memory: float, runs: Sequence[PlannedRun]) -> int:
    # Where the memory is unknown, as under Windows, it is infinite.
    return max(1, int(min(sys.maxsize, MEMORY_SHARE * memory / max(map(estimated_bytes, runs)))))


def relative_rate(jobs: int, cores: int) -> float:
    """Return the images/s of ``jobs`` runs that divide ``cores``, relative to one run with one thread."""
    return jobs * float(cores // jobs) ** _EXPONENT


def choose(rates: Mapping[int, float], costs: Sequence[float]) -> int:
    """Return the smallest number of parallel runs with which a plan takes at most 10 % longer than with the best one.

    ``rates`` maps a number of workers to their total images/s; ``costs`` are those of the plan's runs in order, in any
    unit.
    """
    seconds = {jobs: _makespan(costs, jobs) * jobs / rate for jobs, rate in rates.items()}
    return min(jobs for jobs, needed in seconds.items() if needed <= _TOLERANCE * min(seconds.values()))


def _makespan(costs: Sequence[float], jobs: int) -> float:
    """Return the end of the last run if each run goes to the first idle worker."""
    ends = [0.0] * jobs
    for cost in costs:
        heapq.heapreplace(ends, ends[0] + cost)
    return max(ends)


def candidates(cores: int) -> list[int]:
    """Return the powers of two below ``cores``, and ``cores``."""
    return [2**power for power in range(cores.bit_length()) if 2**power < cores] + [cores]
