"""Two sets of runs paired run by run: what moved, by how much, and whether beyond chance.

Runs are paired if they share task, seed, method, switches, settings, shots, protocol, backbone, image size and data.
A column that one of the two selections names is what they are compared by, so that it need not agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from shipbench.errors import InputError
from shipbench.report.analysis.comparisons import ALPHA, across_tasks_test
from shipbench.report.analysis.differences import over_tasks
from shipbench.report.analysis.predictions import LoadPredictions, TimesCorrect, times_correct
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import method_name, method_order, setting_name, task_order
from shipbench.report.wording.numbers import setting
from shipbench.report.wording.text import counted, joined
from shipbench.statistics import Interval, holm, student_test

Verdict: TypeAlias = Literal["better", "worse", "not beyond chance", "unchanged", "no test"]
TestKind: TypeAlias = Literal["images", "seeds", ""]
_PLACE = ("task", "seed", "data_fingerprint")
_WHAT = ("method", "switches", "shots", "protocol", "backbone", "image_size", "kind", "corruption", "severity")
# Methods, switches and recipes have settings of their own; harnesses do not record the rest.
_IMPLIED = {
    "method": ("settings",),
    "switches": ("settings",),
    "recipe": ("settings",),
    "origin": ("settings", "kind", "data_fingerprint", "backbone", "image_size"),
    "kind": ("settings", "data_fingerprint", "backbone", "image_size"),
    "backbone": ("settings", "image_size"),
}


@dataclass(frozen=True)
class RunPair:
    """A run of each side with the same task and seed; accuracies in percent."""

    label: str
    task: str
    group: str
    seed: int
    run_a: str
    run_b: str
    a: float
    b: float


@dataclass(frozen=True)
class TaskChange:
    """The mean accuracies of both sides on a task in percent, over shared seeds, and the test of their difference.

    ``test`` says what the p-value is over: test images or seeds. ``adjusted`` is Holm's p-value over all tasks of all
    methods.
    """

    label: str
    task: str
    group: str
    seeds: tuple[int, ...]
    a: float
    b: float
    test: TestKind
    p_value: float
    adjusted: float = float("nan")

    @property
    def difference(self) -> float:
        """B minus A in percentage points."""
        return self.b - self.a

    @property
    def verdict(self) -> Verdict:
        """Whether the accuracy moved, and whether beyond chance at the 5 % level."""
        return _verdict(self.difference, self.adjusted)


@dataclass(frozen=True)
class MethodChange:
    """The mean difference of a method over its shared tasks with its 95 % Student t interval, and Wilcoxon's test."""

    label: str
    interval: Interval
    p_value: float
    adjusted: float = float("nan")

    @property
    def verdict(self) -> Verdict:
        """Whether the mean moved, and whether beyond chance at the 5 % level."""
        return _verdict(self.interval.mean, self.adjusted)


@dataclass(frozen=True)
class Unpaired:
    """A run that only one side has, or that finished on one side and failed on the other."""

    run_id: str
    label: str
    task: str
    seed: int


@dataclass(frozen=True)
class Changes:
    """Everything that differs between side A and side B."""

    select: str
    pairs: tuple[RunPair, ...]
    tasks: tuple[TaskChange, ...]
    methods: tuple[MethodChange, ...]
    only_a: tuple[Unpaired, ...]
    only_b: tuple[Unpaired, ...]
    failed_in_b: tuple[Unpaired, ...]

    @property
    def regressions(self) -> list[str]:
        """What became worse beyond chance, and runs that failed only in B, one sentence each."""
        tasks = [f"{c.label} on {c.task}" for c in self.tasks if c.verdict == "worse"]
        methods = [f"{c.label} across tasks" for c in self.methods if c.verdict == "worse"]
        failed = [f"{run.label} on {run.task}, seed {run.seed}, failed in B" for run in self.failed_in_b]
        return [*methods, *tasks, *failed]


@dataclass(frozen=True, eq=False)
class Side:
    """The runs of one side under a selection rule, and how to read their predictions."""

    study: Study
    load: LoadPredictions


def compare(a: Side, b: Side, named: Collection[str]) -> Changes:
    """Pair the runs of two sides; ``named`` are the columns that a selection restricts.

    Raises ``InputError`` if several runs of a side would be paired with the same run of the other.
    """
    key = _pairing_key(named)
    ours, theirs = _by_key(a.study, key, "A"), _by_key(b.study, key, "B")
    shared = [k for k in ours if k in theirs]
    labels = _labels([(ours[k], theirs[k]) for k in shared])
    pairs = [_pair(ours[k], theirs[k], label) for k, label in zip(shared, labels, strict=True)]
    done = sorted((pair for pair in pairs if _both_done(pair)), key=_order)
    tasks = _task_changes(done, a, b)
    return Changes(
        a.study.selection.name,
        tuple(done),
        tuple(tasks),
        tuple(_method_changes(tasks)),
        tuple(_unpaired(row) for k, row in ours.items() if k not in theirs),
        tuple(_unpaired(row) for k, row in theirs.items() if k not in ours),
        tuple(_unpaired(theirs[k]) for k in shared if _is_done(ours[k]) and theirs[k]["status"] != "done"),
    )


def _verdict(difference: float, adjusted: float) -> Verdict:
    if difference == 0:
        return "unchanged"
    if np.isnan(adjusted):
        return "no test"
    if adjusted >= ALPHA:
        return "not beyond chance"
    return "better" if difference > 0 else "worse"


def _pairing_key(named: Collection[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    dropped = {*named, *(column for name in named for column in _IMPLIED.get(name, ()))}
    columns = [column for column in (*_PLACE, *_WHAT) if column not in dropped]

    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        settings = {} if "settings" in dropped else _settings(row)
        chosen = sorted((k, repr(value)) for k, value in settings.items() if f"cfg.{k}" not in dropped)
        return (*(None if row[column] != row[column] else row[column] for column in columns), *chosen)

    return key


def _settings(row: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(row["config"] or "{}")
    return settings


def _by_key(
    study: Study, key: Callable[[Mapping[str, Any]], tuple[Any, ...]], side: str
) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    rows: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in study.records.to_dict(orient="records"):
        record = {str(name): value for name, value in row.items()}
        other = rows.setdefault(key(record), record)
        if other is not record:
            raise InputError(_ambiguous(other, record, side))
    return rows


def _ambiguous(one: Mapping[str, Any], other: Mapping[str, Any], side: str) -> str:
    """Say which runs cannot be told apart, and by what they could be."""
    first, second = _settings(one), _settings(other)
    varied = [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)]
    columns = [name for name in ("git_commit", "recipe", "precision", "device", "origin") if one[name] != other[name]]
    names = sorted(varied) + columns
    hint = f"; they differ in {joined(names[:4])}: name one of these, as in DIR@{names[0]}=VALUE" if names else ""
    return f"{side} has two runs of the same pair, {one['run_id']} and {other['run_id']}{hint}"


def _labels(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    """Return the label of every pair: method and switches, and the settings that vary within a task."""
    plain = [_label(one, other) for one, other in rows]
    varied: dict[str, set[str]] = {}
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for label, (one, _) in zip(plain, rows, strict=True):
        settings = _settings(one)
        reference = first.setdefault((label, one["task"]), settings)
        changed = {key for key in settings if settings[key] != reference.get(key)}
        varied.setdefault(label, set()).update(changed)
    return [
        ", ".join(
            [label, *(f"{setting_name(key)} {setting(_settings(one).get(key))}" for key in sorted(varied[label]))]
        )
        for label, (one, _) in zip(plain, rows, strict=True)
    ]


def _label(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    a, b = _name(one), _name(other)
    return a if a == b else f"{a} → {b}"


def _name(row: Mapping[str, Any]) -> str:
    name = method_name(row["method"])
    name = f"{name} [{row['switches']}]" if row["switches"] else name
    shots = int(row["shots"]) if row["shots"] == row["shots"] else 0
    return f"{name}, {counted(shots, 'shot')}" if shots else name


def _pair(one: Mapping[str, Any], other: Mapping[str, Any], label: str) -> RunPair:
    accuracies = (100 * float(row["accuracy"]) for row in (one, other))
    return RunPair(label, one["task"], one["group"], int(one["seed"]), one["run_id"], other["run_id"], *accuracies)


def _both_done(pair: RunPair) -> bool:
    return not (np.isnan(pair.a) or np.isnan(pair.b))


def _is_done(row: Mapping[str, Any]) -> bool:
    return bool(row["status"] == "done")


def _unpaired(row: Mapping[str, Any]) -> Unpaired:
    return Unpaired(row["run_id"], _name(row), row["task"], int(row["seed"]))


def _order(pair: RunPair) -> tuple[Any, ...]:
    return method_order(pair.label), pair.label, task_order(pair.task), pair.seed


def _task_changes(pairs: Sequence[RunPair], a: Side, b: Side) -> list[TaskChange]:
    cells: dict[tuple[str, str], list[RunPair]] = {}
    for pair in pairs:
        cells.setdefault((pair.label, pair.task), []).append(pair)
    changes = [_task_change(cell, a, b) for cell in cells.values()]
    adjusted = holm([change.p_value for change in changes])
    return [replace(change, adjusted=p) for change, p in zip(changes, adjusted, strict=True)]


def _task_change(pairs: Sequence[RunPair], a: Side, b: Side) -> TaskChange:
    first = pairs[0]
    p_value, test = _image_test(pairs, a, b), "images"
    if p_value is None:
        p_value, test = student_test([pair.b - pair.a for pair in pairs]), "seeds"
    means = (float(np.mean([pair.a for pair in pairs])), float(np.mean([pair.b for pair in pairs])))
    seeds = tuple(pair.seed for pair in pairs)
    kind: TestKind = "" if np.isnan(p_value) else "images" if test == "images" else "seeds"
    return TaskChange(first.label, first.task, first.group, seeds, *means, kind, p_value)


def _image_test(pairs: Sequence[RunPair], a: Side, b: Side) -> float | None:
    """Return the p-value over test images; None unless both sides have predictions on the same ones and one metric.

    Predictions are those after the last epoch, so that they fit no other rule.
    """
    if a.study.selection.name != "final":
        return None
    ours, theirs = _correct(a, [pair.run_a for pair in pairs]), _correct(b, [pair.run_b for pair in pairs])
    test = None if ours is None or theirs is None else theirs.test(ours)
    return None if test is None else test.p_value


def _correct(side: Side, run_ids: Sequence[str]) -> TimesCorrect | None:
    """Return how many of the runs of a side classify each image correctly."""
    records = side.study.records
    metrics = records.loc[records["run_id"].isin(run_ids), "headline_metric"].unique()
    return times_correct(side.load(run_ids), run_ids, metrics[0]) if len(metrics) == 1 else None


def _method_changes(tasks: Sequence[TaskChange]) -> list[MethodChange]:
    values: dict[str, list[float]] = {}
    for change in tasks:
        values.setdefault(change.label, []).append(change.difference)
    changes = [MethodChange(label, over_tasks(v), across_tasks_test(v)) for label, v in values.items()]
    adjusted = holm([change.p_value for change in changes])
    return [replace(change, adjusted=p) for change, p in zip(changes, adjusted, strict=True)]
