"""timm's ``summary.csv`` of a training; its tables of ImageNet models are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from shipbench.errors import InputError
from shipbench.results.foreign.metric_tables import read_metrics, read_table
from shipbench.results.foreign.result import (
    LAST_COUNTS,
    ForeignResult,
    Harness,
    Naming,
    Reading,
    Skipped,
    scores_of,
)
from shipbench.results.foreign.tasks import task_and_suite
from shipbench.results.foreign.text import number, percent, read_yaml, whole

_SETTINGS = ("lr", "weight_decay")
# Schedules of timm that end with a cool-down, which the number of epochs does not count.
_CYCLIC = ("cosine", "tanh", "poly")


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    header, _ = read_table(path)
    if {"model", "param_count"} & set(header):
        yield Skipped(path, "models on ImageNet, without a transfer method: of use as a list of backbones only")
        return
    if not {"epoch", "eval_top1"} <= set(header):
        yield Skipped(path, "no summary of a training: it has no columns epoch and eval_top1")
        return
    table = read_metrics(path, "eval_top1", percent)
    if not table.tests:
        yield Skipped(path, "no evaluated epoch")
        return
    if naming.method is None or naming.task is None:
        raise InputError(f"{path} states neither method nor task; name both with --method and --task")
    arguments = read_yaml(path.with_name("args.yaml"))
    epochs = _epochs(arguments)
    if skipped := table.why_without_result(path, epochs):
        yield skipped
        return
    settings = {name: number(arguments.get(name)) for name in _SETTINGS}
    yield ForeignResult(
        path,
        naming.method,
        *task_and_suite(naming.task),
        seed=whole(arguments.get("seed")),
        settings={name: value for name, value in settings.items() if value is not None},
        note=_note(arguments.get("val_split"), arguments.get("dataset"), epochs),
        **scores_of(table.tests),
    )


def _epochs(arguments: Mapping[str, Any]) -> int | None:
    """Return how many epochs the schedule has in all, None if the arguments do not state them."""
    epochs = whole(arguments.get("epochs"))
    if epochs is None or arguments.get("sched", "cosine") not in _CYCLIC:
        return epochs
    cycles, growth = whole(arguments.get("lr_cycle_limit")) or 1, number(arguments.get("lr_cycle_mul")) or 1.0
    length = sum(epochs * growth**cycle for cycle in range(cycles))
    warmup = whole(arguments.get("warmup_epochs")) if arguments.get("warmup_prefix") is True else 0
    return int(length) + (warmup or 0) + (whole(arguments.get("cooldown_epochs")) or 0)


def _note(split: object, data: object, epochs: int | None) -> str:
    evaluated = f"the evaluated split is --val-split {split or 'not stated'}" + (f" of {data}" if data else "")
    return evaluated if epochs is not None else f"{evaluated}; {LAST_COUNTS}"


def _is_candidate(path: Path) -> bool:
    return any(fnmatch(path.name, pattern) for pattern in ("summary.csv", "results*.csv", "benchmark*.csv"))


TIMM = Harness("timm", "summary.csv of timm", "percent", _is_candidate, _read)
