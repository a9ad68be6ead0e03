"""Throughput, memory and arithmetic of every method against the bare frozen backbone.

All subjects live in one process and are timed in turn, round after round, each right after the bare backbone, so that
a machine whose speed drifts slows both alike; a ratio is the median of those pairs. Nothing here is a test: a figure
belongs to the machine that it was measured on.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.backbones import load_backbone
from shipbench.bench.memory import step_bytes, tensor_bytes
from shipbench.bench.subjects import BareBackbone, Batch, Subject, compile_subject, subject
from shipbench.device import keep_freed_memory
from shipbench.errors import InputError
from shipbench.methods import BuildContext, Method
from shipbench.settings import configure, field_names
from shipbench.training.loop import Arithmetic

_BANK_IMAGES = 256
# Seconds of the bare backbone, and of a subject right after it, in each round.
Pairs: TypeAlias = list[tuple[float, float]]


@dataclass(frozen=True)
class BenchOptions:
    """What is measured: images of ``image_size`` in batches of ``batch_size``, ``repeats`` rounds after a warm-up.

    ``levels`` are the first blocks of the semantic levels that methods with a hierarchy get to see. ``compiled``
    measures every model a second time, compiled by ``torch.compile``.
    """

    backbone: str
    checkpoint: str | None
    image_size: int | None
    batch_size: int = 16
    num_classes: int = 100
    repeats: int = 5
    drop_path: float = 0.1
    levels: tuple[int, ...] = (0, 2, 4, 6, 8, 11)
    prompt_lengths: tuple[int, ...] = (50,)
    compiled: bool = False


@dataclass(frozen=True)
class Timing:
    """Seconds for one batch: the median and the range over rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Measurement:
    """One subject: seconds for a batch, ratios to the bare backbone, bytes of a training step, FLOPs for an image.

    ``training_bytes`` are what a step adds to the memory in use, ``training_tensor_bytes`` the weights and the tensors
    kept for the backward pass. Every ratio is to the bare backbone that is not compiled.
    """

    subject: str
    prompt_length: int | None
    precision: str
    compiled: bool
    inference: Timing
    training: Timing
    inference_ratio: float
    training_ratio: float
    training_bytes: int
    memory_ratio: float
    training_tensor_bytes: int
    tensor_ratio: float
    inference_flops: float
    training_flops: float


def run_bench(
    methods: Sequence[Method],
    options: BenchOptions,
    arithmetic: Arithmetic,
    settings: dict[str, dict[str, Any]],
    say: Callable[[str], None],
) -> list[Measurement]:
    """Measure the bare backbone, then every method at every prompt length; ``settings`` are overrides by method.

    Raises ``InputError`` for levels that do not fit the backbone, and for ``compiled`` with stochastic depth.
    """
    if options.compiled and options.drop_path:
        raise InputError("a compiled step cannot drop branches for some images only; use --drop-path 0 with --compile")
    keep_freed_memory(arithmetic.device)
    torch.manual_seed(0)
    backbone = load_backbone(
        options.backbone,
        checkpoint=options.checkpoint,
        image_size=options.image_size,
        drop_path=options.drop_path,
    ).to(arithmetic.device)
    size = int(backbone.patch_embed.img_size[0])
    images = torch.randn(options.batch_size, 3, size, size, device=arithmetic.device)
    labels = torch.randint(options.num_classes, (options.batch_size,), device=arithmetic.device)
    batch = Batch(images, labels, arithmetic)
    subjects = [subject("bare backbone", None, BareBackbone(backbone), batch)]
    for method in methods:
        for length in _lengths(method, options):
            model = _build(method, length, backbone, options, settings.get(method.name, {}))
            subjects.append(subject(method.name, length, model.to(arithmetic.device), batch))
    if options.compiled:
        subjects += [compiled for source in subjects if (compiled := compile_subject(source, say))]
    return _measure(subjects, _time(subjects, options.repeats, arithmetic), arithmetic)


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


def _lengths(method: Method, options: BenchOptions) -> tuple[int | None, ...]:
    return options.prompt_lengths if "prompt_length" in field_names(method.settings) else (None,)


def _build(
    method: Method, length: int | None, backbone: VisionTransformer, options: BenchOptions, overrides: dict[str, Any]
) -> nn.Module:
    levels, depth = list(options.levels), len(backbone.blocks)
    if not levels or levels[0] != 0 or levels != sorted(set(levels)) or levels[-1] >= depth:
        raise InputError(f"levels {levels} must start with 0, rise, and stay below the backbone's {depth} blocks")
    values = overrides | ({} if length is None else {"prompt_length": length})
    context = BuildContext(
        backbone=copy.deepcopy(backbone),
        num_classes=options.num_classes,
        settings=configure(method.settings, values),
        block_features=lambda _: _features_with_levels(options.levels, len(backbone.blocks), backbone.embed_dim),
        say=lambda _: None,
    )
    return method.build(context).model


def _features_with_levels(levels: Sequence[int], depth: int, width: int) -> Tensor:
    """Return features (images, blocks, D) that agree within a level and are orthogonal across levels."""
    directions = torch.linalg.qr(torch.randn(width, len(levels)))[0].T
    of_block = [sum(level <= block for level in levels) - 1 for block in range(depth)]
    return directions[of_block] * torch.rand(_BANK_IMAGES, 1, 1).add(0.5) + 1e-4 * torch.randn(
        _BANK_IMAGES, depth, width
    )


def _time(subjects: Sequence[Subject], repeats: int, arithmetic: Arithmetic) -> list[tuple[Pairs, Pairs]]:
    """Return the seconds of inference and of training of every subject; the bare backbone is its own neighbour."""
    timed: list[tuple[Pairs, Pairs]] = [([], []) for _ in subjects]
    bare = subjects[0]
    for index in range(repeats + 1):
        for one, (infer, train) in zip(subjects, timed, strict=True):
            for yardstick, work, pairs in ((bare.infer, one.infer, infer), (bare.train, one.train, train)):
                before = _seconds(yardstick, arithmetic)
                own = before if one is bare else _seconds(work, arithmetic)
                if index > 0:
                    pairs.append((before, own))
    return timed


def _seconds(work: Callable[[], None], arithmetic: Arithmetic) -> float:
    arithmetic.wait()
    start = time.perf_counter()
    work()
    arithmetic.wait()
    return time.perf_counter() - start


def _measure(
    subjects: Sequence[Subject], timed: Sequence[tuple[Pairs, Pairs]], arithmetic: Arithmetic
) -> list[Measurement]:
    resident = [step_bytes(one.train, arithmetic) for one in subjects]
    counts = [_counts(one) for one in subjects]
    rows = []
    for one, (infer, train), used, (kept, flops) in zip(subjects, timed, resident, counts, strict=True):
        row = Measurement(
            subject=one.name,
            prompt_length=one.prompt_length,
            precision=arithmetic.precision,
            compiled=one.compiled,
            inference=_timing(infer),
            training=_timing(train),
            inference_ratio=_ratio(infer),
            training_ratio=_ratio(train),
            training_bytes=used,
            memory_ratio=used / resident[0] if resident[0] else float("nan"),
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
