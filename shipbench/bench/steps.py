"""Time, memory and FLOPs of every method's steps against the bare frozen backbone.

All subjects are timed in one process, round by round, each right after the bare backbone, so that a drift in the
machine's speed affects both alike; a ratio is the median over these pairs. Figures hold only for the machine that they
were measured on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch

from shipbench.bench.candidates import Candidate, build, candidates, make_fixture
from shipbench.bench.memory import UNKNOWN, StepBytes, step_bytes_alone, tensor_bytes
from shipbench.bench.options import BenchOptions
from shipbench.bench.subjects import Subject, compile_subject
from shipbench.bench.timing import Timing, timed
from shipbench.errors import InputError, ShipbenchError
from shipbench.hardware.device import as_current, device_name
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import Method

# Seconds of the bare backbone and of a subject right after it, for each round.
Pairs: TypeAlias = list[tuple[float, float]]


@dataclass(frozen=True)
class Measurement:
    """One subject: seconds per batch, ratios to the bare backbone, bytes of a training step, FLOPs per image.

    ``training_bytes`` is the memory that a step adds in a process that holds nothing else, ``training_allocated_bytes``
    the most that its tensors take of it at a time; both are None where they are unknown, as for compiled models.
    ``training_tensor_bytes`` are the weights and the tensors kept for the backward pass. All ratios are to the bare
    backbone that is not compiled. Inference is timed in the middle of an evaluation, but ``inference_flops`` counts its
    first batch, which also computes the prompt states that later batches share.
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
    training_allocated_bytes: int | None
    allocated_ratio: float | None
    training_tensor_bytes: int
    tensor_ratio: float
    inference_flops: float
    training_flops: float


def run_bench(
    methods: Sequence[Method],
    options: BenchOptions,
    compute: ComputeContext,
    settings: dict[str, dict[str, Any]],
    warn: Callable[[str], None],
) -> list[Measurement]:
    """Measure the bare backbone, then every method at every prompt length; ``settings`` are overrides by method name.

    ``warn`` gets a line for each figure that could not be measured. Raises ``InputError`` for levels that do not fit
    the backbone, and for ``compiled`` with stochastic depth.
    """
    if options.compiled and options.drop_path:
        raise InputError("a compiled step cannot drop branches for some images only; use --drop-path 0 with --compile")
    measured = candidates(methods, options, settings)
    with as_current(compute.device):
        backbone, batch = make_fixture(options, compute)
        subjects = [build(candidate, options, backbone, batch) for candidate in measured]
        if options.compiled:
            subjects += [compiled for source in subjects if (compiled := compile_subject(source, warn))]
        timed = _time(subjects, options.repeats, compute)
        memory = _step_bytes(measured, options, compute, warn)
        # Compiled subjects come after the candidates; their memory is not measured.
        memory += [UNKNOWN] * (len(subjects) - len(measured))
        return _measure(subjects, timed, memory, compute)


def as_json(measurements: Sequence[Measurement], options: BenchOptions, device: torch.device) -> dict[str, Any]:
    """Return the measurements, their options and their environment, ready for JSON."""
    return {
        "options": asdict(options),
        **environment(device),
        "measurements": [asdict(measurement) for measurement in measurements],
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Return the name of the device, the number of threads, and the version of torch."""
    return {"device": _machine(device), "threads": torch.get_num_threads(), "torch": torch.__version__}


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return device_name(device)
    import platform

    if device.type == "mps":
        return f"MPS {platform.machine()}"
    return f"CPU {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _time(subjects: Sequence[Subject], repeats: int, compute: ComputeContext) -> list[tuple[Pairs, Pairs]]:
    """Return the pairs of inference and of training for every subject; those of the bare backbone are equal.

    Inference comes before all training steps: prompt states that an evaluation computes once for all batches are
    computed in the warm-up round and stay valid.
    """
    with ExitStack() as evaluations:
        works = [evaluations.enter_context(subject.evaluation()) for subject in subjects]
        infer = _rounds(works, repeats, compute)
    train = _rounds([subject.train for subject in subjects], repeats, compute)
    return list(zip(infer, train, strict=True))


def _rounds(works: Sequence[Callable[[], None]], repeats: int, compute: ComputeContext) -> list[Pairs]:
    rounds: list[Pairs] = [[] for _ in works]
    bare = works[0]
    for index in range(repeats + 1):
        for work, pairs in zip(works, rounds, strict=True):
            bare_seconds, _ = timed(bare, compute)
            # Stochastic depth drops the same branches for every subject of a round.
            torch.manual_seed(index)
            seconds = bare_seconds if work is bare else timed(work, compute)[0]
            if index > 0:
                pairs.append((bare_seconds, seconds))
    return rounds


def _step_bytes(
    measured: Sequence[Candidate], options: BenchOptions, compute: ComputeContext, warn: Callable[[str], None]
) -> list[StepBytes]:
    """Return the memory of a training step of every candidate, unknown if measuring it failed."""
    memory: list[StepBytes] = []
    for candidate in measured:
        try:
            memory.append(step_bytes_alone(candidate, options, compute))
        except ShipbenchError as error:
            warn(str(error))
            memory.append(UNKNOWN)
    return memory


def _measure(
    subjects: Sequence[Subject],
    times: Sequence[tuple[Pairs, Pairs]],
    memory: Sequence[StepBytes],
    compute: ComputeContext,
) -> list[Measurement]:
    counts = [_counts(subject) for subject in subjects]
    bare = memory[0]
    rows = []
    for subject, (infer, train), used, (kept, flops) in zip(subjects, times, memory, counts, strict=True):
        row = Measurement(
            subject=subject.name,
            prompt_length=subject.prompt_length,
            precision=compute.precision,
            compiled=subject.compiled,
            inference=Timing.over([seconds for _, seconds in infer]),
            training=Timing.over([seconds for _, seconds in train]),
            inference_ratio=_ratio(infer),
            training_ratio=_ratio(train),
            training_bytes=used.added,
            memory_ratio=_share(used.added, bare.added),
            training_allocated_bytes=used.allocated,
            allocated_ratio=_share(used.allocated, bare.allocated),
            training_tensor_bytes=kept,
            tensor_ratio=kept / counts[0][0],
            inference_flops=flops[0],
            training_flops=flops[1],
        )
        rows.append(row)
    return rows


def _counts(subject: Subject) -> tuple[int, tuple[float, float]]:
    """Return tensor bytes and FLOPs; the seed makes every subject drop the same branches in both."""
    torch.manual_seed(0)
    kept = tensor_bytes(subject.model, subject.train)
    torch.manual_seed(0)
    return kept, subject.flops()


def _ratio(pairs: Pairs) -> float:
    return statistics.median(seconds / bare for bare, seconds in pairs)


def _share(used: int | None, bare: int | None) -> float | None:
    return used / bare if used is not None and bare else None
