"""A whole run, from image files to the stored record: where its time goes, and what a benchmark would take.

Images are drawn at random and written in VTAB-1k's own format, so that decoding, caching, training, evaluation and
storing are all the real ones. Nothing here is a test: a figure belongs to the machine that it was measured on.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from shipbench.bench.options import EndToEndOptions
from shipbench.bench.shares import evaluation_shares, seconds_per_run, training_shares
from shipbench.bench.synthetic_task import TASK, cache_in, write_images
from shipbench.hardware.determinism import seed_everything
from shipbench.hardware.flops import count_flops
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import FrozenFeatures, Method
from shipbench.results.store import Store
from shipbench.runs import preparation, recording
from shipbench.spec import RunSpec
from shipbench.tasks.catalogue import VTAB
from shipbench.training.loop import evaluate, fit

_MATRIX = {"cpu": 2048, "cuda": 8192}
_MATRIX_ROUNDS = 5


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


def run_end_to_end(method: Method, options: EndToEndOptions) -> EndToEnd:
    """Write images, decode them, and carry out one run, all in a temporary folder with a cache of its own.

    Raises ``InputError`` for a backbone, device or setting that does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="shipbench-bench-") as name, cache_in(Path(name) / "cache"):
        root = Path(name) / "data"
        write_images(root / TASK, options)
        return _measure(method, options, root, Store(Path(name) / "results"))


def _measure(method: Method, options: EndToEndOptions, root: Path, store: Store) -> EndToEnd:
    overrides = {"epochs": 2, "batch_size": options.batch_size, **options.overrides}
    if options.image_size:
        overrides["image_size"] = options.image_size
    spec = RunSpec(
        method.name,
        TASK,
        overrides=overrides,
        backbone=options.backbone,
        checkpoint=options.checkpoint,
        precision=options.precision,  # type: ignore[arg-type]
        data=root,
        device=options.device,
    )
    cold, _ = seconds_per_run(lambda: preparation.prepare(spec))
    loading, prepared = seconds_per_run(lambda: preparation.prepare(spec))
    compute, recipe = prepared.compute, prepared.resolved.recipe
    seed_everything(0, compute.device)
    building, ready = seconds_per_run(lambda: preparation.assemble(prepared), compute)
    done = fit(ready.trained, ready.train, ready.evaluation, recipe, compute, 0, lambda _: None)
    record = recording.describe(prepared, ready, done, peak_memory=0)
    storing, _ = seconds_per_run(lambda: recording.store_run(store, record, prepared, ready, done))
    evaluation, _ = seconds_per_run(lambda: evaluate(ready.built.model, ready.images, compute), compute)
    rates = {
        "decoding": (options.train_images + options.test_images) / max(cold - loading, 1e-9),
        "training": done.epochs[-1].images / done.epochs[-1].train_seconds,
        "evaluation": options.test_images / evaluation,
    }
    matrix = _matrix_rate(compute)
    flops = _step_flops(ready, options, compute)
    return EndToEnd(
        method=method.name,
        precision=compute.precision,
        decoding_rate=rates["decoding"],
        training_rate=rates["training"],
        evaluation_rate=rates["evaluation"],
        loading_seconds=loading,
        building_seconds=building,
        storing_seconds=storing,
        training_shares=training_shares(ready, recipe, compute),
        evaluation_shares=evaluation_shares(ready, compute),
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


def _step_flops(ready: preparation.Assembled, options: EndToEndOptions, compute: ComputeContext) -> dict[str, float]:
    """Return FLOPs for an image, in a training step and in evaluation."""
    chosen = torch.arange(min(options.batch_size, len(ready.train)))
    images, labels = ready.train.batch(chosen), ready.train.labels[chosen.to(compute.device)]
    ready.trained.train()
    training = count_flops(lambda: ready.trained.loss(images, labels).backward())  # type: ignore[operator]
    ready.built.model.eval()
    some = ready.images.batch(torch.arange(1))
    return {
        "training": training / len(chosen),
        "evaluation": count_flops(lambda: ready.built.model(some)),
    }


def _matrix_rate(compute: ComputeContext) -> float:
    """Return the FLOP/s of a large square matrix product in the precision of the run, median of several."""
    size = _MATRIX[compute.device.type]
    kind = torch.bfloat16 if compute.precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=compute.device, dtype=kind) for _ in range(2))
    seconds = []
    for _ in range(_MATRIX_ROUNDS + 1):
        compute.wait()
        start = time.perf_counter()
        a @ b
        compute.wait()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[1:])
