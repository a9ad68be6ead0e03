"""How many runs of a plan go on at a time on the CPU: measured once, remembered, and the same when a plan is continued.

The number of threads changes how sums are rounded. So nothing here depends on which runs are left to do, and what was
measured is kept in the cache folder for the same processor, cores, torch and workload.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import torch

from shipbench.backbones import load_backbone
from shipbench.engine.throughput import Workload, measure
from shipbench.errors import ShipbenchError
from shipbench.hardware.flops import count_flops
from shipbench.hardware.memory import available_memory
from shipbench.hardware.precision import resolve_precision
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.console import say
from shipbench.runtime.files import atomic_path, taking_turns
from shipbench.settings import canonical_json

# What two cores of 2.5 GHz do in some five minutes; for less, a measurement would take longer than it can save.
_WORTH_FLOPS = 3e13
# Measurements repeat to about a tenth; more runs at a time than necessary only take memory.
_TOLERANCE = 1.1


def usable_cores() -> int:
    """Return ``OMP_NUM_THREADS`` if it is set, else how many cores torch would use and this process may use."""
    threads = torch.get_num_threads()
    return threads if os.environ.get("OMP_NUM_THREADS") else min(threads, joblib.cpu_count())


def threads_of_each(jobs: int) -> int:
    """Return the threads of each of ``jobs`` workers."""
    return max(1, usable_cores() // jobs)


def jobs_on_cpu(plan: Plan) -> int:
    """Return how many runs at a time finish the whole plan soonest; tells the user why.

    One for a plan of a single run or of a few minutes' work, whatever is known about the machine.
    """
    cores = usable_cores()
    if cores == 1 or len(plan.runs) == 1 or not plan.chosen:
        return 1
    flops = [_flops(run) for run in plan.runs]
    if sum(flops) < _WORTH_FLOPS:
        return 1
    try:
        rates = known_rates(_main_workload(plan.runs, flops), cores)
    except (ShipbenchError, OSError) as error:
        say(f"{error}; one run at a time (--jobs N for more)")
        return 1
    jobs = choose(rates, flops)
    say(_explained(jobs, rates, cores))
    return jobs


def choose(rates: Mapping[int, float], costs: Sequence[float]) -> int:
    """Return the smallest number of runs at a time with which a plan takes at most a tenth longer than with the best.

    ``rates`` are the images/s of so many workers together; ``costs`` those of the plan's runs in order, in any unit.
    """
    seconds = {jobs: _makespan(costs, jobs) * jobs / rate for jobs, rate in rates.items()}
    return min(jobs for jobs, needed in seconds.items() if needed <= _TOLERANCE * min(seconds.values()))


def _makespan(costs: Sequence[float], jobs: int) -> float:
    """Return when the last run ends if each in turn goes to the worker that is free first."""
    ends = [0.0] * jobs
    for cost in costs:
        heapq.heapreplace(ends, ends[0] + cost)
    return max(ends)


def candidates(cores: int) -> list[int]:
    """Return the powers of two below ``cores``, and ``cores``."""
    return [2**power for power in range(cores.bit_length()) if 2**power < cores] + [cores]


def known_rates(workload: Workload, cores: int) -> dict[int, float]:
    """Return the images/s of every number of workers that fits into memory, measured unless they are remembered.

    Raises ``ShipbenchError`` if a measurement fails, ``OSError`` if it cannot be kept.
    """
    machine = {"processor": _processor(), "cores": cores, "torch": torch.__version__}
    about = {**machine, **asdict(workload)}
    path = cache_dir("throughput") / f"{_digest(about)[:32]}.json"
    with taking_turns(path.with_suffix(".lock"), "another process is measuring this machine; waiting"):
        rates = _read(path, about)
        if rates is None:
            say("measuring, once for this machine and backbone, how many runs at a time it does best")
            rates = measure(workload, candidates(cores), cores, available_memory())
            _write(path, about, rates)
    return rates


def _read(path: Path, about: Mapping[str, Any]) -> dict[int, float] | None:
    """Return the rates in a file, or None unless it is as it was written, about the same machine and workload."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        whole = kept["about"] == about and kept["sha256"] == _digest([kept["about"], kept["rates"]])
        return {int(jobs): float(rate) for jobs, rate in kept["rates"].items()} if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, about: Mapping[str, Any], rates: Mapping[int, float]) -> None:
    content = {str(jobs): rate for jobs, rate in rates.items()}
    kept = {"about": about, "rates": content, "sha256": _digest([about, content])}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _processor() -> str:
    """Return the processor's model; the machine's name would be another one in every container."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{platform.machine()} {model or platform.processor()}"


def _flops(run: PlannedRun) -> float:
    """Return roughly what a run computes; the gradient of a frozen backbone's tokens costs as much as its forward."""
    resolved = run.spec.resolved
    task, recipe = resolved.task, resolved.recipe
    passes = 1 if getattr(resolved.method, "trains_on_features", False) else 2 * recipe.epochs
    return (passes * task.n_train + task.n_test) * _flops_of_an_image(resolved.backbone, recipe.image_size)


@cache
def _flops_of_an_image(backbone: str, image_size: int | None) -> float:
    vit = load_backbone(backbone, checkpoint="random", image_size=image_size)
    image = torch.zeros(1, 3, *vit.patch_embed.img_size)
    return count_flops(lambda: vit(image))


def _main_workload(runs: Sequence[PlannedRun], flops: Sequence[float]) -> Workload:
    """Return the workload that most of a plan's arithmetic belongs to."""
    totals: dict[Workload, float] = {}
    for run, cost in zip(runs, flops, strict=True):
        resolved, recipe = run.spec.resolved, run.spec.resolved.recipe
        precision = resolve_precision(run.spec.precision, torch.device("cpu"))
        workload = Workload(resolved.backbone, recipe.image_size, recipe.batch_size, precision)
        totals[workload] = totals.get(workload, 0.0) + cost
    return max(totals, key=totals.__getitem__)


def _explained(jobs: int, rates: Mapping[int, float], cores: int) -> str:
    measured = [f"{_crew(number, cores // number)} {rate:.3g} images/s" for number, rate in rates.items()]
    return f"{', '.join(measured)}: {jobs} at a time (--jobs N for another number)"


def _crew(workers: int, threads: int) -> str:
    return f"{workers} run{'s' * (workers > 1)} with {threads} thread{'s' * (threads > 1)}"
