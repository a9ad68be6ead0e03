"""Choose how many runs to execute in parallel; on a CPU, benchmarked once per machine and workload, and cached.

The number of threads changes how sums are rounded, and a continued plan must repeat the numbers of an undisturbed one.
So the choice never depends on which runs are left to do, and the measurement is cached by processor, cores, torch and
workload.
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
from shipbench.events import Listener, Note
from shipbench.hardware.device import resolve_device
from shipbench.hardware.flops import count_flops
from shipbench.hardware.memory import available_memory
from shipbench.hardware.precision import resolve_precision
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.files import atomic_path, taking_turns
from shipbench.settings import canonical_json

# About five minutes' work of two cores at 2.5 GHz; for less, measuring would take longer than it can save.
_WORTH_FLOPS = 3e13
# Measurements repeat to about 10 %; more parallel runs than necessary only take memory.
_TOLERANCE = 1.1


def default_jobs(plan: Plan, emit: Listener) -> int:
    """Return one job per CUDA device, or the number of parallel runs that suits the CPU, which may be measured now."""
    device = resolve_device(plan.runs[0].spec.device)
    if device.type == "cpu":
        return jobs_on_cpu(plan, emit)
    return torch.cuda.device_count() if device.index is None else 1


def usable_cores() -> int:
    """Return ``OMP_NUM_THREADS`` if it is set, else the number of cores that torch would use and this process may."""
    threads = torch.get_num_threads()
    return threads if os.environ.get("OMP_NUM_THREADS") else min(threads, joblib.cpu_count())


def threads_per_job(jobs: int) -> int:
    """Return the number of threads of each of ``jobs`` workers."""
    return max(1, usable_cores() // jobs)


def jobs_on_cpu(plan: Plan, emit: Listener) -> int:
    """Return the number of parallel runs that finishes the whole plan soonest, and emit a note that explains it.

    A plan of a single run or of a few minutes' work gets 1 without a measurement.
    """
    cores = usable_cores()
    if cores == 1 or len(plan.runs) == 1 or not plan.chosen:
        return 1
    flops = [_flops(run) for run in plan.runs]
    if sum(flops) < _WORTH_FLOPS:
        return 1
    try:
        rates = throughput_rates(_main_workload(plan.runs, flops), cores, emit)
    except (ShipbenchError, OSError) as error:
        emit(Note(None, f"{error}; executing one run at a time (--jobs N for more)"))
        return 1
    jobs = choose(rates, flops)
    emit(Note(None, _explained(jobs, rates, cores)))
    return jobs


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


def throughput_rates(workload: Workload, cores: int, emit: Listener) -> dict[int, float]:
    """Return the images/s of each candidate number of workers that fits into memory; measure them unless cached.

    Raises ``ShipbenchError`` if the measurement fails, ``OSError`` if it cannot be cached.
    """
    machine = {"processor": _processor(), "cores": cores, "torch": torch.__version__}
    subject = {**machine, **asdict(workload)}
    path = cache_dir("throughput") / f"{_digest(subject)[:32]}.json"
    with taking_turns(path.with_suffix(".lock"), "waiting for another process that is measuring this machine"):
        rates = _read(path, subject)
        if rates is None:
            emit(Note(None, "measuring the best number of parallel runs, once for this machine and backbone"))
            rates = measure(workload, candidates(cores), cores, available_memory())
            _write(path, subject, rates)
    return rates


def _read(path: Path, subject: Mapping[str, Any]) -> dict[int, float] | None:
    """Return the rates in a file, or None if it is missing, damaged, or of another machine or workload."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        valid = entry["subject"] == subject and entry["sha256"] == _digest([entry["subject"], entry["rates"]])
        return {int(jobs): float(rate) for jobs, rate in entry["rates"].items()} if valid else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, subject: Mapping[str, Any], rates: Mapping[int, float]) -> None:
    content = {str(jobs): rate for jobs, rate in rates.items()}
    entry = {"subject": subject, "rates": content, "sha256": _digest([subject, content])}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _processor() -> str:
    """Return the processor's architecture and model; a host name would differ in every container."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{platform.machine()} {model or platform.processor()}"


def _flops(run: PlannedRun) -> float:
    """Estimate a run's FLOPs; the backward pass to a frozen backbone's tokens costs as much as the forward pass."""
    resolved = run.spec.resolved
    task, recipe = resolved.task, resolved.recipe
    passes = 1 if resolved.method.trains_on_features else 2 * recipe.epochs
    return (passes * task.n_train + task.n_test) * _flops_per_image(resolved.backbone, recipe.image_size)


@cache
def _flops_per_image(backbone: str, image_size: int | None) -> float:
    vit = load_backbone(backbone, checkpoint="random", image_size=image_size)
    image = torch.zeros(1, 3, *vit.patch_embed.img_size)
    return count_flops(lambda: vit(image))


def _main_workload(runs: Sequence[PlannedRun], flops: Sequence[float]) -> Workload:
    """Return the workload with the largest share of a plan's FLOPs."""
    totals: dict[Workload, float] = {}
    for run, cost in zip(runs, flops, strict=True):
        resolved, recipe = run.spec.resolved, run.spec.resolved.recipe
        precision = resolve_precision(run.spec.precision, torch.device("cpu"))
        workload = Workload(resolved.backbone, recipe.image_size, recipe.batch_size, precision)
        totals[workload] = totals.get(workload, 0.0) + cost
    return max(totals, key=totals.__getitem__)


def _explained(jobs: int, rates: Mapping[int, float], cores: int) -> str:
    measured = [f"{_allotment(number, cores // number)} {rate:.3g} images/s" for number, rate in rates.items()]
    return f"{', '.join(measured)}: {jobs} at a time (--jobs N for another number)"


def _allotment(workers: int, threads: int) -> str:
    return f"{workers} run{'s' * (workers > 1)} with {threads} thread{'s' * (threads > 1)}"
