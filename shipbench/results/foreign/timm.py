"""timm's ``summary.csv`` of a training; its tables of ImageNet models are refused."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from shipbench.errors import InputError
from shipbench.results.foreign.result import (
    LAST_COUNTS,
    ForeignResult,
    Harness,
    Naming,
    Reading,
    Skipped,
    ends_early,
    in_sequence,
    scores_of,
    unfinished,
)
from shipbench.results.foreign.tasks import task_and_suite
from shipbench.results.foreign.text import number, percent, read_table, read_yaml, whole

_SETTINGS = ("lr", "weight_decay")


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    header, rows = read_table(path)
    if {"model", "param_count"} & set(header):
        yield Skipped(path, "models on ImageNet, without a transfer method: of use as a list of backbones only")
        return
    if not {"epoch", "eval_top1"} <= set(header):
        yield Skipped(path, "no summary of a training: it has no columns epoch and eval_top1")
        return
    # A resumed run repeats the header, and one that starts over also the epochs.
    tests = in_sequence((whole(row.get("epoch")), percent(row.get("eval_top1"), "eval_top1")) for row in rows)
    if not tests:
        yield Skipped(path, "no evaluated epoch")
        return
    if naming.method is None or naming.task is None:
        raise InputError(f"{path} states neither method nor task; name both with --method and --task")
    arguments = read_yaml(path.with_name("args.yaml"))
    epochs = whole(arguments.get("epochs"))
    if ends_early(tests, epochs):
        yield unfinished(path, tests, epochs)
        return
    settings = {name: number(arguments.get(name)) for name in _SETTINGS}
    yield ForeignResult(
        path,
        naming.method,
        *task_and_suite(naming.task),
        seed=whole(arguments.get("seed")),
        settings={name: value for name, value in settings.items() if value is not None},
        note=_note(arguments.get("val_split"), arguments.get("dataset"), epochs),
        **scores_of(tests),
    )


def _note(split: object, data: object, epochs: int | None) -> str:
    evaluated = f"the evaluated split is --val-split {split or 'not stated'}" + (f" of {data}" if data else "")
    return evaluated if epochs is not None else f"{evaluated}; {LAST_COUNTS}"


def _is_candidate(path: Path) -> bool:
    return any(fnmatch(path.name, pattern) for pattern in ("summary.csv", "results*.csv", "benchmark*.csv"))


TIMM = Harness("timm", "summary.csv of timm", "percent", _is_candidate, _read)
