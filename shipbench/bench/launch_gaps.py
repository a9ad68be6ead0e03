"""How long a device is idle between the kernels of a training step, from a trace of torch's profiler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

from torch.profiler import ProfilerActivity

from shipbench.bench.options import PartOptions
from shipbench.bench.traces import make_profiler, trace_events
from shipbench.bench.workloads import Case, cases
from shipbench.recipe import Capture
from shipbench.training.loop import Hooks

_ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
# cuBLAS and cuDNN launch some kernels through the driver.
_CALLS = {"cuda_runtime", "cuda_driver"}
_STEPS = 5
_LONGEST = 12


@dataclass(frozen=True)
class Work:
    """A kernel or a copy in a trace; ``start`` and ``duration`` in microseconds."""

    name: str
    start: float
    duration: float

    @property
    def end(self) -> float:
        """The time at which it ends, in microseconds."""
        return self.start + self.duration


def profile_launches(options: PartOptions) -> Iterator[dict[str, Any]]:
    """Yield rows for SHIP in every precision: the kernels of a training step, and the gaps between them."""
    methods = tuple(name for name in options.methods if name == "ship")
    for case in cases(replace(options, steps=_STEPS), methods):
        yield from case.both_ways(partial(_profiled, case))


def _profiled(case: Case, capture: Capture) -> dict[str, Any]:
    """Train three epochs and profile the second, in which nothing is set up and nothing is evaluated."""
    on_gpu = case.compute.device.type == "cuda"
    profiler = make_profiler([ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])])
    switches = iter((profiler.start, profiler.stop))

    def after_epoch(_: object) -> None:
        case.compute.wait()
        next(switches)()

    fit = case.workload(3, capture).fit(Hooks(keep=after_epoch))
    return {"captured": fit.captured, **launch_figures(trace_events(profiler), _STEPS, on_gpu=on_gpu)}


def launch_figures(events: Sequence[Mapping[str, Any]], steps: int, *, on_gpu: bool = False) -> dict[str, Any]:
    """Return figures per step from the events of a Chrome trace of ``steps`` steps; times in ms, gaps in microseconds.

    ``span`` is the time from the first kernel to the end of the last, ``busy`` the part of it in which at least one
    runs, ``idle`` the rest as a fraction. In a trace of steps on a CPU, its operators count as kernels; one of steps
    ``on_gpu`` without a kernel has no figures but an ``error``: the profiler could not trace the GPU.
    """
    on_device = [event for event in events if event.get("cat") in _ON_DEVICE]
    if on_gpu and not on_device:
        return {"error": "the trace holds no kernel of the GPU: the profiler cannot trace it"}
    queued = on_device or [event for event in events if event.get("cat") == "cpu_op"]
    works = sorted((Work(e["name"], float(e["ts"]), float(e["dur"])) for e in queued), key=lambda work: work.start)
    if not works:
        return {"error": "the trace holds no kernel"}
    gaps = _gaps(works)
    span = max(work.end for work in works) - works[0].start
    busy = span - sum(gaps)
    calls = Counter(event["name"] for event in events if event.get("cat") in _CALLS)
    return {
        "device_in_trace": bool(on_device),
        "span": span / steps / 1e3,
        "busy": busy / steps / 1e3,
        "idle": 1 - busy / span if span else 0.0,
        "kernels": len(works) / steps,
        "copies_from_host": sum("HtoD" in work.name for work in works) / steps,
        "launches": sum(count for name, count in calls.items() if "Launch" in name) / steps,
        "longest_gaps": sorted(gaps, reverse=True)[:_LONGEST],
        "longest_kernels": _longest(works, steps),
    }


def _gaps(works: Sequence[Work]) -> list[float]:
    """Return the times, in microseconds, between works sorted by their starts in which none of them runs."""
    ends = accumulate((work.end for work in works), max)
    gaps = (work.start - end for work, end in zip(works[1:], ends, strict=False))
    return [gap for gap in gaps if gap > 0]


def _longest(works: Sequence[Work], steps: int) -> list[dict[str, Any]]:
    """Return the names that take most time, with their ms and their number per step."""
    counts = Counter(work.name for work in works)
    times: Counter[str] = Counter()
    for work in works:
        times[work.name] += work.duration  # type: ignore[assignment]
    return [
        {"name": name, "ms": duration / steps / 1e3, "count": counts[name] / steps}
        for name, duration in times.most_common(_LONGEST)
    ]
