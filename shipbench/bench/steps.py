"""Throughput, memory and arithmetic of every method against the bare frozen backbone.

All subjects live in one process and are timed in turn, round after round, so that a machine whose speed drifts slows
them alike; medians are compared. Nothing here is a test: a figure belongs to the machine that it was measured on.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.backbones import load_backbone
from shipbench.device import PeakMemory
from shipbench.errors import InputError
from shipbench.flops import count_flops
from shipbench.methods import BuildContext, Method
from shipbench.prompting import frozen
from shipbench.settings import configure, field_names
from shipbench.throughput import backbone_step
from shipbench.training.loop import Arithmetic, make_optimizer
from shipbench.training.recipe import Recipe

_BANK_IMAGES = 256


@dataclass(frozen=True)
class BenchOptions:
    """What is measured: images of ``image_size`` in batches of ``batch_size``, ``repeats`` rounds after a warm-up.

    ``levels`` are the first blocks of the semantic levels that methods with a hierarchy get to see.
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


@dataclass(frozen=True)
class Timing:
    """Seconds for one batch: the median and the range over rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Measurement:
    """One subject: seconds for a batch, ratios to the bare backbone, bytes of a training step, FLOPs for an image."""

    subject: str
    prompt_length: int | None
    precision: str
    inference: Timing
    training: Timing
    inference_ratio: float
    training_ratio: float
    training_bytes: int
    memory_ratio: float
    inference_flops: float
    training_flops: float


@dataclass
class _Subject:
    name: str
    prompt_length: int | None
    model: nn.Module
    images: Tensor
    train: Callable[[], object]
    arithmetic: Arithmetic
    infer_seconds: list[float] = field(default_factory=list)
    train_seconds: list[float] = field(default_factory=list)

    def infer(self) -> None:
        self.model.eval()
        with torch.no_grad(), self.arithmetic.autocast():
            self.model(self.images)

    def inference_flops(self) -> float:
        self.model.eval()
        return count_flops(lambda: self.model(self.images)) / len(self.images)


def run_bench(
    methods: Sequence[Method], options: BenchOptions, arithmetic: Arithmetic, settings: dict[str, dict[str, Any]]
) -> list[Measurement]:
    """Measure the bare backbone, then every method at every prompt length; ``settings`` are overrides by method."""
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
    subjects = [_bare(backbone, images, arithmetic)]
    for method in methods:
        for length in _lengths(method, options):
            model = _build(method, length, backbone, options, settings.get(method.name, {}))
            subjects.append(_subject(method.name, length, model.to(arithmetic.device), images, labels, arithmetic))
    _time(subjects, options.repeats, arithmetic)
    return _measure(subjects, options.batch_size, arithmetic)


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


def _bare(backbone: VisionTransformer, images: Tensor, arithmetic: Arithmetic) -> _Subject:
    """The yardstick: the frozen backbone as timm runs it, and its gradient with respect to the image tokens."""
    vit = frozen(copy.deepcopy(backbone))

    return _Subject("bare backbone", None, vit, images, lambda: backbone_step(vit, images, arithmetic), arithmetic)


def _subject(
    name: str, length: int | None, model: nn.Module, images: Tensor, labels: Tensor, arithmetic: Arithmetic
) -> _Subject:
    optimizer = make_optimizer(model, Recipe())

    def train() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with arithmetic.autocast():
            loss: Tensor = model.loss(images, labels)  # type: ignore[operator]
        loss.backward()
        optimizer.step()

    return _Subject(name, length, model, images, train, arithmetic)


def _time(subjects: Sequence[_Subject], repeats: int, arithmetic: Arithmetic) -> None:
    for index in range(repeats + 1):
        for subject in subjects:
            for work, seconds in ((subject.infer, subject.infer_seconds), (subject.train, subject.train_seconds)):
                arithmetic.wait()
                start = time.perf_counter()
                work()
                arithmetic.wait()
                if index > 0:
                    seconds.append(time.perf_counter() - start)


def _measure(subjects: Sequence[_Subject], batch: int, arithmetic: Arithmetic) -> list[Measurement]:
    bare = subjects[0]
    memory = [_step_bytes(subject.train, arithmetic) for subject in subjects]
    rows = []
    for subject, used in zip(subjects, memory, strict=True):
        rows.append(
            Measurement(
                subject=subject.name,
                prompt_length=subject.prompt_length,
                precision=arithmetic.precision,
                inference=_timing(subject.infer_seconds),
                training=_timing(subject.train_seconds),
                inference_ratio=_ratio(subject.infer_seconds, bare.infer_seconds),
                training_ratio=_ratio(subject.train_seconds, bare.train_seconds),
                training_bytes=used,
                memory_ratio=used / memory[0] if memory[0] else float("nan"),
                inference_flops=subject.inference_flops(),
                training_flops=count_flops(subject.train) / batch,
            )
        )
    return rows


def _timing(seconds: Sequence[float]) -> Timing:
    return Timing(statistics.median(seconds), min(seconds), max(seconds))


def _ratio(seconds: Sequence[float], bare: Sequence[float]) -> float:
    """Return the median of the ratios of neighbours in time, round by round."""
    return statistics.median(a / b for a, b in zip(seconds, bare, strict=True))


def _step_bytes(work: Callable[[], object], arithmetic: Arithmetic) -> int:
    """Return the memory that one step adds to what was in use before it."""
    gc.collect()
    arithmetic.wait()
    if arithmetic.device.type == "cuda":
        before = torch.cuda.memory_allocated(arithmetic.device)
    else:
        _return_free_memory()
        before = PeakMemory(arithmetic.device).bytes()
    peak = PeakMemory(arithmetic.device)
    work()
    return max(0, peak.bytes() - before)


def _return_free_memory() -> None:
    """Ask glibc to give freed memory back, so that the step's own shows; elsewhere nothing happens."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return
