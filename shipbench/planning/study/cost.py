"""What the runs of a study cost: seconds from the rates of recorded runs, FLOPs where there is no record."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any, TypeAlias

from shipbench.methods import find_method
from shipbench.planning.plan import PlannedRun, State
from shipbench.planning.study.flops import planned_image_size
from shipbench.record import TRAINED, is_null
from shipbench.spec import RunSpec
from shipbench.tasks import SUITES, TASKS

# Method, backbone and image size in pixels (None: unknown).
RateKey: TypeAlias = tuple[str, str, int | None]
Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Rates:
    """Speeds of recorded runs: forward passes of the backbone per second by kind of run, and FLOPs per second.

    Both are medians; ``flops`` is NaN without a record of a method that does not train on fixed features.
    ``native_sizes`` are the image sizes of backbones in pixels, as far as records tell. ``with_features`` are kinds of
    runs with the tasks and protocols for which recorded runs have computed fixed features: the seconds of their records
    do not contain that.
    """

    passes: Mapping[RateKey, float]
    flops: float = math.nan
    native_sizes: Mapping[str, int] = field(default_factory=dict)
    with_features: Collection[tuple[RateKey, str, str]] = ()


@dataclass(frozen=True)
class Cost:
    """The cost of ``runs`` runs: the seconds of those whose time is known, and the FLOPs of the others.

    ``measured`` counts the runs whose seconds come from records of the same method, backbone and image size.
    """

    seconds: float = 0.0
    flops: float = 0.0
    runs: int = 0
    measured: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of both."""
        return Cost(
            self.seconds + other.seconds,
            self.flops + other.flops,
            self.runs + other.runs,
            self.measured + other.measured,
        )


def passes(epochs: int, eval_every: int, n_train: int, n_test: int, *, trains_on_features: bool) -> int:
    """Return how many forward passes of the backbone a run takes, in images.

    A backward pass to the tokens counts as a forward pass; fixed features are computed once for all epochs.
    """
    if trains_on_features:
        return n_train + n_test
    # Evaluated after the epochs 0, eval_every, 2 eval_every, ... and after the last one.
    evaluations = len({*range(0, epochs, eval_every), epochs - 1}) if eval_every else 1
    return 2 * epochs * n_train + evaluations * n_test


def planned_passes(spec: RunSpec) -> int:
    """Return ``passes`` of a planned run, with the sizes of its task and its share of the training images."""
    resolved = spec.resolved
    task = resolved.task
    train_split, test_split = spec.splits
    n_train = round((task.shots * task.num_classes or task.counts[train_split]) * resolved.recipe.data_share)
    n_test, recipe, on_features = task.counts[test_split], resolved.recipe, resolved.method.trains_on_features
    if on_features and task.augment != "none":
        # Augmented images have other features in every epoch, and no gradient passes through the backbone.
        return (
            passes(recipe.epochs, recipe.eval_every, n_train, n_test, trains_on_features=False)
            - recipe.epochs * n_train
        )
    return passes(recipe.epochs, recipe.eval_every, n_train, n_test, trains_on_features=on_features)


def measured_rates(rows: Iterable[Row]) -> Rates:
    """Return the rates of finished training runs in ``rows``, as ``shipbench.results.loading.load_rows`` has them."""
    by_key: dict[RateKey, list[float]] = defaultdict(list)
    native: dict[str, set[int]] = defaultdict(set)
    flops: list[float] = []
    with_features: set[tuple[RateKey, str, str]] = set()
    for row in rows:
        method, seconds = find_method(row["method"]), _seconds(row)
        if method is None or row["status"] != "done" or row["kind"] != TRAINED or not seconds > 0:
            continue
        if method.trains_on_features and _is_augmented(row):
            continue
        epochs, every, size = (_setting(row, name) for name in ("epochs", "eval_every", "image_size"))
        sizes = (row["n_train"], row["n_test"])
        count = passes(epochs or 1, every or 0, *sizes, trains_on_features=method.trains_on_features)
        key = (row["method"], row["backbone"], size)
        by_key[key].append(count / seconds)
        if size and _has_native_size(row):
            native[row["backbone"]].add(size)
        if method.trains_on_features:
            with_features.add((key, row["task"], row["protocol"]))
        else:
            flops.append(_number(row, "flops_per_image") * _number(row, "eval_images_per_second"))
    finite = [value for value in flops if math.isfinite(value)]
    return Rates(
        {key: median(values) for key, values in by_key.items()},
        median(finite) if finite else math.nan,
        {backbone: sizes.pop() for backbone, sizes in native.items() if len(sizes) == 1},
        with_features,
    )


def _is_augmented(row: Row) -> bool:
    """Return whether images were augmented, so that features were computed in every epoch; own tasks seldom are."""
    return row["task"] in TASKS and TASKS[row["task"]].augment != "none"


def _has_native_size(row: Row) -> bool:
    """Return whether the backbone decided the image size of a record, rather than a setting or the suite's recipe."""
    by_suite = any("image_size" in suite.recipe for suite in SUITES if suite.name == row["suite"])
    return not by_suite and "image_size=" not in row["overrides"]


def _setting(row: Row, name: str) -> int | None:
    """Return a whole number among a record's settings; None if it has none of that name."""
    value = row.get(f"cfg.{name}")
    return None if is_null(value) else int(value)  # type: ignore[arg-type]


def _seconds(row: Row) -> float:
    return _number(row, "train_seconds") + _number(row, "eval_seconds")


def _number(row: Row, column: str) -> float:
    """Return a measurement of a record; NaN if it has none."""
    value = row.get(column)
    return math.nan if value is None else float(value)


def estimate(spec: RunSpec, rates: Rates, forward_flops: Callable[[RunSpec], float], images: int | None = None) -> Cost:
    """Return the cost of a run; ``forward_flops`` gives those of its backbone per image and is called if needed.

    With ``images``, it is the cost of one evaluation on that number of images. Without a record of its method, backbone
    and image size, seconds follow from FLOPs at the recorded FLOPs per second. They do so too where features have yet
    to be computed: on a task without such a record, and in evaluations.
    """
    resolved, count = spec.resolved, planned_passes(spec) if images is None else images
    # A record holds the size in use, a recipe None for that of the backbone.
    size = planned_image_size(spec) or rates.native_sizes.get(resolved.backbone)
    key = (resolved.method.name, resolved.backbone, size)
    has_features = images is None and (key, resolved.task.name, spec.protocol) in rates.with_features
    rate = rates.passes.get(key)
    if rate is not None and (has_features or not resolved.method.trains_on_features):
        return Cost(seconds=count / rate, runs=1, measured=1)
    flops = count * forward_flops(spec)
    return Cost(flops=flops, runs=1) if math.isnan(rates.flops) else Cost(seconds=flops / rates.flops, runs=1)


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs."""
    return sum(costs, Cost())


def mean_of_points(points: Sequence[Sequence[RunSpec]], cost_of: Callable[[RunSpec], Cost]) -> Cost:
    """Return the mean cost of the runs that the points of a search would have."""
    costs = [total(map(cost_of, specs)) for specs in points]
    return Cost(
        fmean(cost.seconds for cost in costs),
        fmean(cost.flops for cost in costs),
        costs[0].runs,
        min(cost.measured for cost in costs),
    )


def spent_seconds(runs: Iterable[PlannedRun], rows: Iterable[Row]) -> float:
    """Return the training and evaluation time of those ``runs`` that are done, by their records."""
    done = {run.run_id for run in runs if run.state is State.DONE}
    seconds = [_seconds(row) for row in rows if row["run_id"] in done]
    return math.fsum(value for value in seconds if math.isfinite(value))
