"""Choosing settings on validation images: grids, the runs of every point, and which point wins.

Every point is trained on train800 and scored on val200 (protocol "tuning"). Those runs never open the test split, so
nothing here can look at it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import product
from statistics import fmean
from typing import Any, TypeAlias

from shipbench.errors import InputError, did_you_mean
from shipbench.methods import Method, Tunable
from shipbench.planning.grid import overrides_by_method
from shipbench.record import RunRecord
from shipbench.results.tunings import FORMAT
from shipbench.runtime.version import VERSION, git_commit
from shipbench.settings import canonical_json
from shipbench.spec import RunSpec
from shipbench.tasks import Task

Axes: TypeAlias = Mapping[str, tuple[Any, ...]]

RULE = "highest mean validation accuracy; of equal ones the fewest trainable parameters, then the first in the grid"
FEWER_PARAMETERS = "fewer trainable parameters"
GRID_ORDER = "order of the grid"
# Accuracies are counts over a few hundred images: means closer than this differ by rounding alone.
_DIGITS = 9


@dataclass(frozen=True)
class Point:
    """One setting of a grid: the values it changes, and its runs (protocol "tuning"), one per task and seed."""

    settings: Mapping[str, Any]
    specs: tuple[RunSpec, ...]


@dataclass(frozen=True)
class Search:
    """One decision to be made: a method, the tasks that it is made for, and the points to choose from."""

    method: str
    tasks: tuple[str, ...]
    axes: Axes
    points: tuple[Point, ...]

    @property
    def specs(self) -> list[RunSpec]:
        """Every tuning run, point by point."""
        return [spec for point in self.points for spec in point.specs]

    def final_specs(self, winner: int, seeds: Iterable[int]) -> list[RunSpec]:
        """Return the winner's runs on the 1000, tested once, for every task and seed."""
        usual = {spec.task: spec for spec in self.points[winner].specs}
        return [replace(spec, seed=seed, protocol="final") for spec in usual.values() for seed in seeds]


@dataclass(frozen=True)
class Trial:
    """What came of one point: its runs by id, their validation accuracies (NaN for a failed run), its cost.

    ``trainable_params`` is the mean over the runs that finished; ``error`` is the first failure.
    """

    settings: Mapping[str, Any]
    runs: tuple[str, ...]
    accuracies: tuple[float, ...]
    trainable_params: float
    error: str = ""

    @property
    def mean(self) -> float:
        """The mean accuracy over tasks and tuning seeds; NaN if a run failed, for fewer runs do not compare."""
        return fmean(self.accuracies)


@dataclass(frozen=True)
class Choice:
    """The index of the winning trial (None if every trial failed), those that tied, and what broke the tie."""

    winner: int | None
    tied: tuple[int, ...] = ()
    broken_by: str = ""


def choose(trials: Sequence[Trial]) -> Choice:
    """Pick by ``RULE``; trials with a failed run cannot win."""
    ready = {i: round(trial.mean, _DIGITS) for i, trial in enumerate(trials) if math.isfinite(trial.mean)}
    if not ready:
        return Choice(None)
    tied = [i for i, mean in ready.items() if mean == max(ready.values())]
    fewest = min(trials[i].trainable_params for i in tied)
    lean = [i for i in tied if trials[i].trainable_params == fewest]
    if len(tied) == 1:
        return Choice(tied[0])
    reasons = [FEWER_PARAMETERS] * (len(lean) < len(tied)) + [GRID_ORDER] * (len(lean) > 1)
    return Choice(lean[0], tuple(tied), ", then ".join(reasons))


def collect(search: Search, run_ids: Callable[[RunSpec], str], records: Mapping[str, RunRecord]) -> list[Trial]:
    """Return a trial for every point of a search, from the records of its runs by id."""
    return [_trial(point, [run_ids(spec) for spec in point.specs], records) for point in search.points]


def _trial(point: Point, ids: Sequence[str], records: Mapping[str, RunRecord]) -> Trial:
    found = [records.get(run_id) for run_id in ids]
    done = [record for record in found if record is not None and record.done]
    errors = [record.error if record is not None else "not run" for record in found if record not in done]
    return Trial(
        settings=point.settings,
        runs=tuple(ids),
        accuracies=tuple(record.val_acc if record is not None and record.done else math.nan for record in found),
        trainable_params=fmean(record.trainable_params for record in done) if done else math.nan,
        error=errors[0] if errors else "",
    )


def make_searches(
    methods: Sequence[Method],
    tasks: Sequence[Task],
    grids: Sequence[str],
    seeds: Sequence[int],
    template: RunSpec,
    values: Mapping[str, Any],
    *,
    common: bool,
) -> list[Search]:
    """Return a search per method and task, or with ``common`` one per method over all tasks together.

    ``grids`` are names of the methods' own grids and ``KEY=V1,V2`` texts; ``values`` hold for every point. Every spec
    is resolved here, so that a value that does not fit is refused before anything runs (``InputError``).
    """
    axes = parse_grids(grids, methods)
    overrides = overrides_by_method(methods, values)
    together = [tuple(tasks)] if common else [(task,) for task in tasks]
    searches = []
    for chosen in together:
        for method in methods:
            _refuse_both(axes[method.name], overrides[method.name])
            base = replace(template, method=method.name, protocol="tuning", overrides=overrides[method.name])
            names = tuple(task.name for task in chosen)
            points = _points(axes[method.name], base, names, seeds)
            searches.append(Search(method.name, names, axes[method.name], points))
    return searches


def parse_grids(texts: Sequence[str], methods: Sequence[Method]) -> dict[str, Axes]:
    """Read ``--grid`` options into axes per method: named grids first, ``KEY=V1,V2`` replacing an axis of theirs.

    Raises ``InputError`` for an unknown name or setting, a key given twice, or a method that is left without a grid.
    """
    axes: dict[str, dict[str, tuple[Any, ...]]] = {method.name: {} for method in methods}
    for name in (text.strip() for text in texts if "=" not in text):
        for method in methods:
            axes[method.name] |= _named_grid(method, name)
    for method_name, own in overrides_by_method(methods, _axes_of(texts), option="--grid").items():
        axes[method_name] |= own
    for method_name, found in axes.items():
        if not found:
            raise InputError(f"there is nothing to tune for {method_name}: no --grid names one of its settings")
    return {name: dict(found) for name, found in axes.items()}


def _axes_of(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    axes: dict[str, tuple[str, ...]] = {}
    for text in (text for text in texts if "=" in text):
        key, _, listed = text.partition("=")
        values = tuple(dict.fromkeys(value.strip() for value in listed.split(",") if value.strip()))
        if not key.strip() or not values:
            raise InputError(f"--grid {text!r} is neither KEY=V1,V2,... nor the name of a grid")
        if key.strip() in axes:
            raise InputError(f"--grid gives {key.strip()!r} twice")
        axes[key.strip()] = values
    return axes


def _named_grid(method: Method, name: str) -> dict[str, tuple[Any, ...]]:
    known = method.grids() if isinstance(method, Tunable) else {}
    if name not in known:
        has = f"it has {', '.join(known)}" if known else "it has none; give KEY=V1,V2"
        raise InputError(f"--grid: {method.name} has no grid {name!r}{did_you_mean(name, list(known))}; {has}")
    return {key: tuple(values) for key, values in known[name].items()}


def _refuse_both(axes: Axes, overrides: Mapping[str, Any]) -> None:
    for key in axes:
        if key in overrides:
            raise InputError(f"{key} is given twice: by --grid and by --set or --epochs")


def _points(axes: Axes, base: RunSpec, tasks: Sequence[str], seeds: Sequence[int]) -> tuple[Point, ...]:
    """Return the grid's points, the first key varying slowest; points that mean the same are one."""
    points: dict[str, Point] = {}
    for values in product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        overrides = dict(base.overrides) | point
        specs = [replace(base, task=task, seed=seed, overrides=overrides) for task in tasks for seed in seeds]
        configs = [spec.resolved.config for spec in specs]
        settings = {key: configs[0][key] for key in axes}
        points.setdefault(canonical_json(configs), Point(settings, tuple(specs)))
    return tuple(points.values())


def tuning_id(trials: Sequence[Trial]) -> str:
    """Return 16 hexadecimal digits that follow from the runs that were compared, in the grid's order."""
    return hashlib.sha256(canonical_json([list(trial.runs) for trial in trials]).encode()).hexdigest()[:16]


def describe(
    search: Search, tuning_seeds: Sequence[int], trials: Sequence[Trial], choice: Choice, final_runs: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the content of the file; accuracies are fractions in [0, 1], None where a run failed."""
    return {
        "format": FORMAT,
        "tuning_id": tuning_id(trials),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "shipbench_version": VERSION,
        "git_commit": git_commit(),
        "method": search.method,
        "tasks": list(search.tasks),
        "tuning_seeds": list(tuning_seeds),
        "trained_on": "train800",
        "scored_on": "val200",
        "rule": RULE,
        "grid": {key: list(values) for key, values in search.axes.items()},
        "trials": [_trial_row(trial) for trial in trials],
        "winner": choice.winner,
        "winner_settings": None if choice.winner is None else dict(trials[choice.winner].settings),
        "tied": list(choice.tied),
        "tie_broken_by": choice.broken_by,
        "final_runs": list(final_runs),
    }


def _trial_row(trial: Trial) -> dict[str, Any]:
    return {
        "settings": dict(trial.settings),
        "runs": list(trial.runs),
        "val_acc": [_known(accuracy) for accuracy in trial.accuracies],
        "mean_val_acc": _known(trial.mean),
        "trainable_params": _known(trial.trainable_params),
        "error": trial.error,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
