"""The time of a whole run, from image files to the stored record, and an estimate for all of VTAB-1k.

Images are random but stored in VTAB-1k's format, so decoding, caching, training, evaluation and storing run the code of
real runs. Figures hold only for the machine that they were measured on.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shipbench.bench.options import EndToEndOptions
from shipbench.bench.shares import evaluation_shares, training_shares
from shipbench.bench.synthetic_task import TASK, cache_in, write_images
from shipbench.bench.timing import timed
from shipbench.hardware.determinism import seed_everything
from shipbench.hardware.device import as_current, resolve_device
from shipbench.hardware.flops import count_flops
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import Method, as_frozen_features
from shipbench.results.store import Store
from shipbench.runs import preparation, recording
from shipbench.runs.backbone_cache import copy_of_backbone
from shipbench.spec import RunSpec
from shipbench.tasks.catalogue import VTAB
from shipbench.training.loop import evaluate, fit

# Rows of the square matrices in the product that measures peak FLOP/s.
_MATRIX_SIZE, _MATRIX_SIZE_OF_GPUS = 2048, 8192
_MATRIX_ROUNDS = 5


@dataclass(frozen=True)
class EndToEnd:
    """The measurements of one run: rates in images/s, times in s, shares and fractions in [0, 1].

    The shares divide the time of a training epoch and of an evaluation. ``matrix_rate`` is the FLOP/s of a large matrix
    product; ``training_fraction`` and ``evaluation_fraction`` are the fractions of it that training and evaluation
    reach. ``estimates`` are the times of all 19 tasks of VTAB-1k by phase, each task trained once for the ``epochs`` of
    the options and tested once.
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
        """The estimated time of all 19 tasks, decoding included, in s."""
        return sum(self.estimates.values())

    def as_json(self) -> dict[str, Any]:
        """Return all measurements, ready for JSON."""
        return asdict(self) | {"benchmark_seconds": self.benchmark_seconds}


def run_end_to_end(method: Method, options: EndToEndOptions) -> EndToEnd:
    """Write images and execute one run on them, in a temporary folder that also holds the image cache.

    Raises ``InputError`` for an unknown backbone, device or setting.
    """
    with (
        as_current(resolve_device(options.device)),
        # The image cache is still mapped at the end: Windows removes no such file, and NFS keeps it under another name.
        tempfile.TemporaryDirectory(prefix="shipbench-bench-", ignore_cleanup_errors=True) as name,
        cache_in(Path(name) / "cache"),
    ):
        root = Path(name) / "data"
        write_images(root / TASK, options)
        return _measure(method, options, root, Store(Path(name) / "results"))


def _measure(method: Method, options: EndToEndOptions, root: Path, store: Store) -> EndToEnd:
    spec = _spec(method, options, root)
    resolved = spec.resolved
    # Once, because a process keeps the backbone: what is left between the two preparations is the decoding.
    copy_of_backbone(resolved.backbone, spec.checkpoint, resolved.recipe.image_size, resolved.recipe.drop_path)
    cold, _ = timed(lambda: preparation.prepare(spec))
    loading, prepared = timed(lambda: preparation.prepare(spec))
    compute, recipe = prepared.compute, prepared.resolved.recipe
    seed_everything(0, compute.device)
    building, ready = timed(lambda: preparation.assemble(prepared), compute)
    done = fit(ready.trained, ready.train, ready.evaluation, recipe, compute, 0)
    trained = recording.Trained(prepared, ready, done, peak_memory=0)
    record = recording.describe(trained)
    storing, _ = timed(lambda: recording.store_run(store, record, trained))
    evaluation, _ = timed(lambda: evaluate(ready.built.model, ready.images, compute), compute)
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


def _spec(method: Method, options: EndToEndOptions, root: Path) -> RunSpec:
    overrides = {"epochs": 2, "batch_size": options.batch_size, **options.overrides}
    if options.image_size:
        overrides["image_size"] = options.image_size
    return RunSpec(
        method.name,
        TASK,
        overrides=overrides,
        backbone=options.backbone,
        checkpoint=options.checkpoint,
        precision=options.precision,  # type: ignore[arg-type]
        data=root,
        device=options.device,
    )


def _estimates(
    rates: Mapping[str, float], fixed: float, building: float, options: EndToEndOptions, model: nn.Module
) -> dict[str, float]:
    """Return the seconds of all tasks by phase, scaled to their numbers of images where these matter."""
    train = sum(task.n_train for task in VTAB.tasks)
    test = sum(task.n_test for task in VTAB.tasks)
    # Frozen features are computed once when the method is built, for training and test images; then only a head trains.
    frozen = as_frozen_features(model) is not None
    scale = (train + test) / (options.train_images + options.test_images) if frozen else train / options.train_images
    return {
        "decoding": (train + test) / rates["decoding"],
        "loading and storing": fixed * len(VTAB.tasks),
        "building": building * scale,
        "training": options.epochs * train / rates["training"],
        "evaluation": 0.0 if frozen else test / rates["evaluation"],
    }


def _step_flops(ready: preparation.Assembled, options: EndToEndOptions, compute: ComputeContext) -> dict[str, float]:
    """Return the FLOPs per image of a training step and of an evaluation.

    What follows from the weights alone, such as SHIP's prompts, is computed once per batch or per evaluation.
    """
    indices = torch.arange(min(options.batch_size, len(ready.train)))
    images, labels = ready.train.batch(indices), ready.train.labels[indices.to(compute.device)]

    def step() -> None:
        with compute.autocast():
            loss = ready.trained.loss(images, labels)  # type: ignore[operator]
        # As in training, gradients are computed outside autocast.
        with compute.products():
            loss.backward()

    ready.trained.train()
    training = count_flops(step)
    with _frozen(ready.built.model) as model:
        # A replay counts nothing.
        evaluation = count_flops(lambda: evaluate(model, ready.images, compute, capture="off"))
    return {"training": training / len(indices), "evaluation": evaluation / len(ready.images)}


@contextmanager
def _frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the model without trained tensors: the hooks of a counter fail on those that a module is called with."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield model
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _matrix_rate(compute: ComputeContext) -> float:
    """Return the median FLOP/s of a large square matrix product in the precision of the run."""
    size = _MATRIX_SIZE if compute.device.type == "cpu" else _MATRIX_SIZE_OF_GPUS
    dtype = torch.bfloat16 if compute.precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=compute.device, dtype=dtype) for _ in range(2))
    seconds = [timed(lambda: a @ b, compute)[0] for _ in range(_MATRIX_ROUNDS + 1)]
    return 2 * size**3 / statistics.median(seconds[1:])
