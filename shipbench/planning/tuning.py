"""Choose settings on validation images: grids, the runs of every point, and the rule that picks a point.

Every point is trained on four fifths of the training images and scored on the others (protocol "tuning"): train800 and
val200 in VTAB-1k. Its runs never open the test split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any, TypeAlias

from shipbench.errors import InputError, did_you_mean
from shipbench.methods import Method
from shipbench.planning.grid import overrides_by_method, refuse_fixed, refuse_idle
from shipbench.record import ACCURACY, MEAN_PER_CLASS, RunRecord, time_now
from shipbench.results.store import Store
from shipbench.results.tunings import FORMAT
from shipbench.runtime.version import VERSION, git_commit
from shipbench.settings import canonical_json, canonical_sha256, comma_list
from shipbench.spec import RunSpec
from shipbench.tasks import Task
from shipbench.tasks.catalogue import split_titles

Axes: TypeAlias = Mapping[str, tuple[Any, ...]]

RULE = "highest mean validation accuracy; of equal ones the fewest trainable parameters, then the first in the grid"
FEWER_PARAMETERS = "fewer trainable parameters"
GRID_ORDER = "order of the grid"
_NO_ACCURACY = "its record has no validation accuracy by the metric of the task; repeat it with --force"
# Accuracies are counts over a few hundred images; smaller differences between means are rounding errors.
_DIGITS = 9
_FEWEST_VALUES = 3


@dataclass(frozen=True)
class Point:
    """One point of a grid: the settings it changes, and its runs (protocol "tuning"), one per task and seed."""

    settings: Mapping[str, Any]
    specs: tuple[RunSpec, ...]


@dataclass(frozen=True)
class Search:
    """One choice to make: the points of a grid for a method, and the tasks that the choice is for."""

    method: str
    tasks: tuple[str, ...]
    axes: Axes
    points: tuple[Point, ...]

    @property
    def specs(self) -> list[RunSpec]:
        """Every tuning run, point by point."""
        return [spec for point in self.points for spec in point.specs]

    @property
    def opened_tasks(self) -> list[Task]:
        """The tasks with their sizes, in the order of ``tasks``."""
        by_name = {spec.resolved.task.name: spec.resolved.task for spec in self.points[0].specs}
        return list(by_name.values())

    def final_specs(self, winner: int, seeds: Iterable[int]) -> list[RunSpec]:
        """Return the runs of the point ``winner`` on all training images, tested once, for every task and seed."""
        by_task = {spec.task: spec for spec in self.points[winner].specs}
        return [replace(spec, seed=seed, protocol="final") for spec in by_task.values() for seed in seeds]


@dataclass(frozen=True)
class Trial:
    """The result of one point: its run ids, their validation accuracies (NaN for a failed run), and its cost.

    ``accuracies`` are by the metric of the task. ``trainable_params`` is the mean over finished runs; ``error`` is that
    of the first failed run, else empty.
    """

    settings: Mapping[str, Any]
    runs: tuple[str, ...]
    accuracies: tuple[float, ...]
    trainable_params: float
    error: str = ""

    @property
    def mean(self) -> float:
        """The mean accuracy over tasks and tuning seeds; NaN if a run failed, as fewer runs are not comparable."""
        return fmean(self.accuracies)


@dataclass(frozen=True)
class Choice:
    """The index of the winning trial (None if every trial failed), the indices that tied, and the tie-breaker."""

    winner: int | None
    tied: tuple[int, ...] = ()
    broken_by: str = ""


@dataclass(frozen=True)
class Decision:
    """A search with the trial of each of its points, and the choice among them."""

    search: Search
    trials: tuple[Trial, ...]
    choice: Choice

    def final_specs(self, seeds: Iterable[int]) -> list[RunSpec]:
        """Return the winner's runs on all training images, for every task and seed; none without a winner."""
        winner = self.choice.winner
        return [] if winner is None else self.search.final_specs(winner, seeds)


def decide(search: Search, ids: Mapping[RunSpec, str], store: Store) -> Decision:
    """Return the decision of a search, whose runs have ``ids`` and their records in ``store``."""
    records = {ids[spec]: record for spec in search.specs if (record := store.read(ids[spec])) is not None}
    trials = collect(search, ids, records)
    return Decision(search, tuple(trials), choose(trials))


def choose(trials: Sequence[Trial]) -> Choice:
    """Choose a trial by ``RULE``; trials with a failed run are excluded."""
    means = {i: round(trial.mean, _DIGITS) for i, trial in enumerate(trials) if math.isfinite(trial.mean)}
    if not means:
        return Choice(None)
    tied = [i for i, mean in means.items() if mean == max(means.values())]
    fewest = min(trials[i].trainable_params for i in tied)
    smallest = [i for i in tied if trials[i].trainable_params == fewest]
    if len(tied) == 1:
        return Choice(tied[0])
    reasons = [FEWER_PARAMETERS] * (len(smallest) < len(tied)) + [GRID_ORDER] * (len(smallest) > 1)
    return Choice(smallest[0], tuple(tied), ", then ".join(reasons))


def ends_of_grid(trials: Sequence[Trial], choice: Choice) -> dict[str, str]:
    """Return which chosen numbers are the "lowest" or "highest" of their setting: values beyond were not tried.

    Of fewer than three values, every one is at an end. 0 is as low as settings go.
    """
    if choice.winner is None:
        return {}
    ends = {}
    for name, chosen in trials[choice.winner].settings.items():
        values = {trial.settings[name] for trial in trials}
        if len(values) < _FEWEST_VALUES or not all(type(value) in (int, float) for value in values):
            continue
        if chosen == max(values):
            ends[name] = "highest"
        elif chosen == min(values) and chosen != 0:
            ends[name] = "lowest"
    return ends


def collect(search: Search, ids: Mapping[RunSpec, str], records: Mapping[str, RunRecord]) -> list[Trial]:
    """Return the trial of every point of a search; ``records`` holds the records of its runs by id."""
    return [_trial(point, [ids[spec] for spec in point.specs], records) for point in search.points]


def _trial(point: Point, ids: Sequence[str], records: Mapping[str, RunRecord]) -> Trial:
    results = [records.get(run_id) for run_id in ids]
    done = [record for record in results if record is not None and record.done]
    errors = [record.error if record is not None else "not run" for record in results if record not in done]
    accuracies = tuple(_accuracy(*pair) for pair in zip(point.specs, results, strict=True))
    if not errors and not all(map(math.isfinite, accuracies)):
        errors = [_NO_ACCURACY]
    return Trial(
        settings=point.settings,
        runs=tuple(ids),
        accuracies=accuracies,
        trainable_params=fmean(record.trainable_params for record in done) if done else math.nan,
        error=errors[0] if errors else "",
    )


def _accuracy(spec: RunSpec, record: RunRecord | None) -> float:
    """Return the validation accuracy by the metric that the task has now, which is not part of the run id."""
    if record is None or not record.done:
        return math.nan
    return record.val_mean_class_acc if spec.resolved.task.metric == MEAN_PER_CLASS else record.val_acc


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
    """Return a search per method and task, or with ``common`` one per method for all tasks together.

    ``grids`` are names of grids of the methods and ``KEY=V1,V2`` texts; ``values`` apply to every point. Every spec is
    resolved here, so a value that does not fit raises ``InputError`` before anything runs.
    """
    axes = parse_grids(grids, methods)
    overrides = overrides_by_method(methods, values)
    task_groups = [tuple(tasks)] if common else [(task,) for task in tasks]
    searches = []
    for group in task_groups:
        for method in methods:
            refuse_fixed(axes[method.name], overrides[method.name], "--grid")
            base = replace(template, method=method.name, protocol="tuning", overrides=overrides[method.name])
            points = _points(axes[method.name], base, group, seeds)
            names = tuple(task.name for task in group)
            searches.append(Search(method.name, names, axes[method.name], points))
    return searches


def parse_grids(texts: Sequence[str], methods: Sequence[Method]) -> dict[str, Axes]:
    """Return the axes of each method from ``--grid`` options; ``KEY=V1,V2`` replaces that axis of a named grid.

    Raises ``InputError`` for an unknown name or setting, a repeated key, or a method without any axis.
    """
    axes: dict[str, dict[str, tuple[Any, ...]]] = {method.name: {} for method in methods}
    for name in (text.strip() for text in texts if "=" not in text):
        for method in methods:
            axes[method.name] |= _named_grid(method, name)
    given = _axes_of(texts)
    refuse_idle(given, "--grid")
    for method_name, listed in overrides_by_method(methods, given, option="--grid").items():
        axes[method_name] |= listed
    for method_name, method_axes in axes.items():
        if not method_axes:
            raise InputError(f"there is nothing to tune for {method_name}: no --grid names one of its settings")
    return dict(axes)


def _axes_of(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    axes: dict[str, tuple[str, ...]] = {}
    for text in (text for text in texts if "=" in text):
        key, _, listed = text.partition("=")
        values = tuple(comma_list(listed))
        if not key.strip() or not values:
            raise InputError(f"--grid {text!r} is neither KEY=V1,V2,... nor the name of a grid")
        if key.strip() in axes:
            raise InputError(f"--grid gives {key.strip()!r} twice")
        axes[key.strip()] = values
    return axes


def _named_grid(method: Method, name: str) -> dict[str, tuple[Any, ...]]:
    grids = method.grids()
    if name not in grids:
        has = f"it has {', '.join(grids)}" if grids else "it has none; give KEY=V1,V2"
        raise InputError(f"--grid: {method.name} has no grid {name!r}{did_you_mean(name, grids)}; {has}")
    return {key: tuple(values) for key, values in grids[name].items()}


def _points(axes: Axes, base: RunSpec, tasks: Sequence[Task], seeds: Sequence[int]) -> tuple[Point, ...]:
    """Return the points of a grid, the first key varying slowest; points with equal settings are one point."""
    points: dict[str, Point] = {}
    for values in product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        overrides = dict(base.overrides) | point
        specs = [replace(base, task=task, seed=seed, overrides=overrides) for task in tasks for seed in seeds]
        configs = [spec.resolved.config for spec in specs]
        settings = {key: configs[0][key] for key in axes}
        points.setdefault(canonical_json(configs), Point(settings, tuple(specs)))
    return tuple(points.values())


def tuning_id(decision: Decision) -> str:
    """Return a hash of the compared run ids in grid order and of metrics beside accuracy: 16 hexadecimal digits."""
    compared: list[Sequence[str]] = [trial.runs for trial in decision.trials]
    metrics = [task.metric for task in decision.search.opened_tasks]
    if set(metrics) != {ACCURACY}:
        compared.append(metrics)
    return canonical_sha256(compared)[:16]


def describe(decision: Decision, tuning_seeds: Sequence[int], final_runs: Sequence[str] = ()) -> dict[str, Any]:
    """Return the document of a tuning, ready for JSON; accuracies are fractions in [0, 1], None for a failed run."""
    search, trials, choice = decision.search, decision.trials, decision.choice
    return {
        "format": FORMAT,
        "tuning_id": tuning_id(decision),
        "created": time_now(),
        "shipbench_version": VERSION,
        "git_commit": git_commit(),
        "method": search.method,
        "tasks": list(search.tasks),
        "tuning_seeds": list(tuning_seeds),
        "trained_on": split_titles(search.opened_tasks, "train800"),
        "scored_on": split_titles(search.opened_tasks, "val200"),
        "rule": RULE,
        "grid": {key: list(values) for key, values in search.axes.items()},
        "trials": [_trial_row(trial) for trial in trials],
        "winner": choice.winner,
        "winner_settings": None if choice.winner is None else dict(trials[choice.winner].settings),
        "ends_of_grid": ends_of_grid(trials, choice),
        "tied": list(choice.tied),
        "tie_broken_by": choice.broken_by,
        "final_runs": list(final_runs),
        "earlier_final_runs": [],
    }


def _trial_row(trial: Trial) -> dict[str, Any]:
    return {
        "settings": dict(trial.settings),
        "runs": list(trial.runs),
        "val_acc": [_finite_or_none(accuracy) for accuracy in trial.accuracies],
        "mean_val_acc": _finite_or_none(trial.mean),
        "trainable_params": _finite_or_none(trial.trainable_params),
        "error": trial.error,
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
