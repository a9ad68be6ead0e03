"""A whole run, from image files to the stored record: where its time goes, and what a benchmark would take.

Images are drawn at random and written in VTAB-1k's own format, so that decoding, caching, training, evaluation and
storing are all the real ones. Nothing here is a test: a figure belongs to the machine that it was measured on.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from shipbench.hardware.device import seed_everything
from shipbench.hardware.flops import count_flops
from shipbench.methods import FrozenFeatures, Method
from shipbench.results.store import Store
from shipbench.runs import preparation, recording
from shipbench.spec import RunSpec
from shipbench.tasks.catalogue import VTAB, get_task
from shipbench.training.inputs import Inputs
from shipbench.training.loop import Arithmetic, evaluate, fit

_TASK = "dtd"
_NATIVE_SIZE = 256
_MATRIX = {"cpu": 2048, "cuda": 8192}
_MATRIX_ROUNDS = 5


@dataclass(frozen=True)
class EndToEndOptions:
    """One run of ``method``: so many images to train on and to test on, in batches of ``batch_size``.

    ``epochs`` is what the estimate for the whole benchmark counts with; the run itself trains for two epochs, of which
    the second is timed.
    """

    backbone: str
    checkpoint: str | None = "random"
    image_size: int | None = None
    batch_size: int = 64
    train_images: int = 1000
    test_images: int = 1000
    epochs: int = 100
    precision: str = "auto"
    device: str = "auto"
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EndToEnd:
    """What was measured: rates in images/s, times in s, shares of a training epoch or evaluation pass in [0, 1].

    ``matrix_rate`` is what a large matrix product reaches on the device; the fractions say how much of it training and
    evaluation reach. ``estimates`` are the parts of the 19 tasks of VTAB-1k, each trained once for ``epochs``
    and tested once, in s.
    """

    method: str
    precision: str
    decoding_rate: float
    training_rate: float
    evaluation_rate: float
    loading_seconds: float
    building_seconds: float
    storing_seconds: float
    training_shares: Mapping[str, float]
    evaluation_shares: Mapping[str, float]
    matrix_rate: float
    training_fraction: float
    evaluation_fraction: float
    estimates: Mapping[str, float]

    @property
    def benchmark_seconds(self) -> float:
        """The whole benchmark, decoding included."""
        return sum(self.estimates.values())


@dataclass
class _Clock:
    """Seconds spent in named parts, each waited for, which slows a GPU down: for shares, never for rates."""

    arithmetic: Arithmetic
    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = 0.0

    def start(self) -> None:
        self.arithmetic.wait()
        self._since = time.perf_counter()

    def stop(self, part: str) -> None:
        self.arithmetic.wait()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - self._since


@dataclass(frozen=True)
class _TimedInputs:
    """Inputs whose batches are timed."""

    inputs: Inputs
    clock: _Clock

    @property
    def labels(self) -> Tensor:
        return self.inputs.labels

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Tensor) -> Tensor:
        self.clock.start()
        batch = self.inputs.batch(indices)
        self.clock.stop("data")
        return batch

    def read(self, indices: Tensor) -> Callable[[], Tensor]:
        return self.inputs.read(indices)


def run_end_to_end(method: Method, options: EndToEndOptions) -> EndToEnd:
    """Write images, decode them, and carry out one run, all in a temporary folder with a cache of its own.

    Raises ``InputError`` for a backbone, device or setting that does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="shipbench-bench-") as name, _cache_in(Path(name) / "cache"):
        root = Path(name) / "data"
        _write_images(root / _TASK, options)
        return _measure(method, options, root, Store(Path(name) / "results"))


def _measure(method: Method, options: EndToEndOptions, root: Path, store: Store) -> EndToEnd:
    overrides = {"epochs": 2, "batch_size": options.batch_size, **options.overrides}
    if options.image_size:
        overrides["image_size"] = options.image_size
    spec = RunSpec(
        method.name,
        _TASK,
        overrides=overrides,
        backbone=options.backbone,
        checkpoint=options.checkpoint,
        precision=options.precision,  # type: ignore[arg-type]
        data=root,
        device=options.device,
    )
    cold, _ = _seconds(lambda: preparation.prepare(spec))
    loading, prepared = _seconds(lambda: preparation.prepare(spec))
    arithmetic, recipe = prepared.arithmetic, prepared.resolved.recipe
    seed_everything(0, arithmetic.device)
    building, ready = _seconds(lambda: preparation.assemble(prepared), arithmetic)
    done = fit(ready.trained, ready.train, ready.evaluation, recipe, arithmetic, 0, lambda _: None)
    record = recording.describe(prepared, ready, done, peak_memory=0)
    storing, _ = _seconds(lambda: recording.store_run(store, record, prepared, ready, done))
    evaluation, _ = _seconds(lambda: evaluate(ready.built.model, ready.images, arithmetic), arithmetic)
    rates = {
        "decoding": (options.train_images + options.test_images) / max(cold - loading, 1e-9),
        "training": done.epochs[-1].images / done.epochs[-1].train_seconds,
        "evaluation": options.test_images / evaluation,
    }
    matrix = _matrix_rate(arithmetic)
    flops = _step_flops(ready, options, arithmetic)
    return EndToEnd(
        method=method.name,
        precision=arithmetic.precision,
        decoding_rate=rates["decoding"],
        training_rate=rates["training"],
        evaluation_rate=rates["evaluation"],
        loading_seconds=loading,
        building_seconds=building,
        storing_seconds=storing,
        training_shares=_training_shares(ready, recipe, arithmetic),
        evaluation_shares=_evaluation_shares(ready, arithmetic),
        matrix_rate=matrix,
        training_fraction=flops["training"] * rates["training"] / matrix,
        evaluation_fraction=flops["evaluation"] * rates["evaluation"] / matrix,
        estimates=_estimates(rates, loading + storing, building, options, ready.built.model),
    )


def _estimates(
    rates: Mapping[str, float], fixed: float, building: float, options: EndToEndOptions, model: nn.Module
) -> dict[str, float]:
    """Return seconds for all tasks, by part: what grows with the images is scaled to their true number."""
    train = sum(task.n_train for task in VTAB.tasks)
    test = sum(task.n_test for task in VTAB.tasks)
    # Features that never change are read once, for all images, when the method is built; only the head is left then.
    frozen = isinstance(model, FrozenFeatures)
    seen = (train + test) / (options.train_images + options.test_images) if frozen else train / options.train_images
    return {
        "decoding": (train + test) / rates["decoding"],
        "loading and storing": fixed * len(VTAB.tasks),
        "building": building * seen,
        "training": options.epochs * train / rates["training"],
        "evaluation": 0.0 if frozen else test / rates["evaluation"],
    }


def _training_shares(ready: preparation.Assembled, recipe: Any, arithmetic: Arithmetic) -> dict[str, float]:
    clock = _Clock(arithmetic)
    hooks = (
        register_optimizer_step_pre_hook(lambda *_: clock.start()),
        register_optimizer_step_post_hook(lambda *_: clock.stop("optimiser")),
    )
    try:
        once = replace(recipe, epochs=1)
        timed = _TimedInputs(ready.train, clock)
        report = fit(ready.trained, timed, ready.evaluation, once, arithmetic, 0, lambda _: None).epochs[0]
    finally:
        for hook in hooks:
            hook.remove()
    return _shares(clock.seconds, report.train_seconds, rest="model")


def _evaluation_shares(ready: preparation.Assembled, arithmetic: Arithmetic) -> dict[str, float]:
    """Return what the model takes of a pass; the rest of it is data that the model had to wait for."""
    clock, model = _Clock(arithmetic), ready.built.model
    hooks = (
        model.register_forward_pre_hook(lambda *_: clock.start()),
        model.register_forward_hook(lambda *_: clock.stop("model")),
    )
    try:
        seconds, _ = _seconds(lambda: evaluate(model, ready.images, arithmetic), arithmetic)
    finally:
        for hook in hooks:
            hook.remove()
    return _shares(clock.seconds, seconds, rest="data")


def _shares(parts: Mapping[str, float], total: float, rest: str) -> dict[str, float]:
    shares = {part: seconds / total for part, seconds in parts.items()}
    return shares | {rest: 1 - sum(shares.values())}


def _step_flops(ready: preparation.Assembled, options: EndToEndOptions, arithmetic: Arithmetic) -> dict[str, float]:
    """Return FLOPs for an image, in a training step and in evaluation."""
    chosen = torch.arange(min(options.batch_size, len(ready.train)))
    images, labels = ready.train.batch(chosen), ready.train.labels[chosen.to(arithmetic.device)]
    ready.trained.train()
    training = count_flops(lambda: ready.trained.loss(images, labels).backward())  # type: ignore[operator]
    ready.built.model.eval()
    some = ready.images.batch(torch.arange(1))
    return {
        "training": training / len(chosen),
        "evaluation": count_flops(lambda: ready.built.model(some)),
    }


def _matrix_rate(arithmetic: Arithmetic) -> float:
    """Return the FLOP/s of a large square matrix product in the precision of the run, median of several."""
    size = _MATRIX[arithmetic.device.type]
    kind = torch.bfloat16 if arithmetic.precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=arithmetic.device, dtype=kind) for _ in range(2))
    seconds = []
    for _ in range(_MATRIX_ROUNDS + 1):
        arithmetic.wait()
        start = time.perf_counter()
        a @ b
        arithmetic.wait()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[1:])


def _seconds(work: Callable[[], Any], arithmetic: Arithmetic | None = None) -> tuple[float, Any]:
    """Return how long ``work`` took, with what it gave its device to do, if it has one, and what it returned."""
    start = time.perf_counter()
    result = work()
    if arithmetic is not None:
        arithmetic.wait()
    return time.perf_counter() - start, result


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """Use a cache of our own, so that decoding is measured and nothing of it stays."""
    before = os.environ.get("SHIPBENCH_CACHE")
    os.environ["SHIPBENCH_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SHIPBENCH_CACHE"]
        else:
            os.environ["SHIPBENCH_CACHE"] = before


def _write_images(folder: Path, options: EndToEndOptions) -> None:
    """Write smooth random JPEG files of a photograph's usual size, and split files in VTAB-1k's format."""
    rng = np.random.default_rng(0)
    classes = get_task(_TASK).num_classes
    first = options.train_images * 4 // 5
    counts = {"train800": first, "val200": options.train_images - first, "test": options.test_images}
    lines: dict[str, list[str]] = {}
    for split, count in counts.items():
        (folder / split).mkdir(parents=True)
        for index in range(count):
            name = f"{split}/{index:06d}.jpg"
            coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((_NATIVE_SIZE, _NATIVE_SIZE)).save(folder / name, quality=90)
            lines.setdefault(split, []).append(f"{name} {index % classes}\n")
    lines["train800val200"] = lines["train800"] + lines["val200"]
    for split, rows in lines.items():
        (folder / f"{split}.txt").write_text("".join(rows), encoding="utf-8")
