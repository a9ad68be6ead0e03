"""Throughput, memory and arithmetic of every method against the bare frozen backbone.

All subjects live in one process and are timed in turn, round after round, each right after the bare backbone, so that
a machine whose speed drifts slows both alike; a ratio is the median of those pairs. Nothing here is a test: a figure
belongs to the machine that it was measured on.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch

from shipbench.bench.candidates import Candidate, build, candidates, make_fixture
from shipbench.bench.memory import step_bytes_alone, tensor_bytes
from shipbench.bench.options import BenchOptions
from shipbench.bench.subjects import Subject, compile_subject
from shipbench.errors import InputError, ShipbenchError
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import Method

# Seconds of the bare backbone, and of a subject right after it, in each round.
Pairs: TypeAlias = list[tuple[float, float]]


@dataclass(frozen=True)
class Timing:
    """Seconds for one batch: the median and the range over rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Measurement:
    """One subject: seconds for a batch, ratios to the bare backbone, bytes of a training step, FLOPs for an image.

    ``training_bytes`` are what a step adds to the memory in use by a process that holds nothing else, None for a
    compiled model; ``training_tensor_bytes`` are the weights and the tensors kept for the backward pass.
    Every ratio is to the bare backbone that is not compiled. Inference is timed as in the midst of an evaluation;
    ``inference_flops`` are those of its first batch, which also computes what later ones share.
    """

    subject: str
    prompt_length: int | None
    precision: str
    compiled: bool
    inference: Timing
    training: Timing
    inference_ratio: float
    training_ratio: float
    training_bytes: int | None
    memory_ratio: float | None
    training_tensor_bytes: int
    tensor_ratio: float
    inference_flops: float
    training_flops: float


def run_bench(
    methods: Sequence[Method],
    options: BenchOptions,
    compute: ComputeContext,
    settings: dict[str, dict[str, Any]],
    say: Callable[[str], None],
) -> list[Measurement]:
    """Measure the bare backbone, then every method at every prompt length; ``settings`` are overrides by method.

    Raises ``InputError`` for levels that do not fit the backbone, and for ``compiled`` with stochastic depth.
    """
    if options.compiled and options.drop_path:
        raise InputError("a compiled step cannot drop branches for some images only; use --drop-path 0 with --compile")
    wanted = candidates(methods, options, settings)
    backbone, batch = make_fixture(options, compute)
    subjects = [build(candidate, options, backbone, batch) for candidate in wanted]
    if options.compiled:
        subjects += [compiled for source in subjects if (compiled := compile_subject(source, say))]
    timed = _time(subjects, options.repeats, compute)
    return _measure(subjects, timed, _step_bytes(wanted, subjects, options, compute, say), compute)


def as_json(measurements: Sequence[Measurement], options: BenchOptions, device: torch.device) -> dict[str, Any]:
    """Return everything that was measured, and what it was measured on."""
    return {
        "options": asdict(options),
        **environment(device),
        "measurements": [asdict(measurement) for measurement in measurements],
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Return what things are measured on: the device, the threads, and the version of torch."""
    return {"device": _device_name(device), "threads": torch.get_num_threads(), "torch": torch.__version__}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    import platform

    return f"CPU {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _time(subjects: Sequence[Subject], repeats: int, compute: ComputeContext) -> list[tuple[Pairs, Pairs]]:
    """Return the seconds of inference and of training of every subject; the bare backbone is its own neighbour.

    No step lies between two batches of inference: what an evaluation computes once for all of its batches, it has
    after the round that warms up.
    """
    infer = _rounds([one.infer for one in subjects], repeats, compute)
    train = _rounds([one.train for one in subjects], repeats, compute)
    return list(zip(infer, train, strict=True))


def _rounds(works: Sequence[Callable[[], None]], repeats: int, compute: ComputeContext) -> list[Pairs]:
    timed: list[Pairs] = [[] for _ in works]
    bare = works[0]
    for index in range(repeats + 1):
        for work, pairs in zip(works, timed, strict=True):
            before = _seconds(bare, compute)
            # In one round, every subject drops the same branches.
            torch.manual_seed(index)
            own = before if work is bare else _seconds(work, compute)
            if index > 0:
                pairs.append((before, own))
    return timed


def _seconds(work: Callable[[], None], compute: ComputeContext) -> float:
    compute.wait()
    start = time.perf_counter()
    work()
    compute.wait()
    return time.perf_counter() - start


def _step_bytes(
    wanted: Sequence[Candidate],
    subjects: Sequence[Subject],
    options: BenchOptions,
    compute: ComputeContext,
    say: Callable[[str], None],
) -> list[int | None]:
    """Return what a training step of every subject adds to the memory in use, None where that is not known."""
    found: list[int | None] = [None] * len(subjects)
    for index, candidate in enumerate(wanted):
        try:
            found[index] = step_bytes_alone(candidate, options, compute)
        except ShipbenchError as error:
            say(str(error))
    return found


def _measure(
    subjects: Sequence[Subject],
    timed: Sequence[tuple[Pairs, Pairs]],
    memory: Sequence[int | None],
    compute: ComputeContext,
) -> list[Measurement]:
    counts = [_counts(one) for one in subjects]
    rows = []
    for one, (infer, train), used, (kept, flops) in zip(subjects, timed, memory, counts, strict=True):
        row = Measurement(
            subject=one.name,
            prompt_length=one.prompt_length,
            precision=compute.precision,
            compiled=one.compiled,
            inference=_timing(infer),
            training=_timing(train),
            inference_ratio=_ratio(infer),
            training_ratio=_ratio(train),
            training_bytes=used,
            memory_ratio=used / memory[0] if used is not None and memory[0] else None,
            training_tensor_bytes=kept,
            tensor_ratio=kept / counts[0][0],
            inference_flops=flops[0],
            training_flops=flops[1],
        )
        rows.append(row)
    return rows


def _counts(one: Subject) -> tuple[int, tuple[float, float]]:
    """Return the bytes of tensors and the FLOPs of steps that drop the same branches in every subject, each time."""
    torch.manual_seed(0)
    kept = tensor_bytes(one.model, one.train)
    torch.manual_seed(0)
    return kept, one.flops()


def _timing(pairs: Pairs) -> Timing:
    own = [seconds for _, seconds in pairs]
    return Timing(statistics.median(own), min(own), max(own))


def _ratio(pairs: Pairs) -> float:
    return statistics.median(own / bare for bare, own in pairs)
