"""timm's ``summary.csv`` of a training; its tables of ImageNet models are refused."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from shipbench.errors import InputError
from shipbench.results.foreign.result import (
    VTAB,
    Evaluation,
    ForeignResult,
    Harness,
    Naming,
    Reading,
    Skipped,
    best_of,
    unfinished,
)
from shipbench.results.foreign.tasks import vtab_task
from shipbench.results.foreign.text import number, percent, read_text, read_yaml, whole

_SETTINGS = ("lr", "weight_decay")


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    rows = list(csv.reader(io.StringIO(read_text(path))))
    header = rows[0] if rows else []
    if {"model", "param_count"} & set(header):
        yield Skipped(path, "models on ImageNet, without a transfer method: of use as a list of backbones only")
        return
    if not {"epoch", "eval_top1"} <= set(header):
        yield Skipped(path, "no summary of a training: it has no columns epoch and eval_top1")
        return
    tests = _tests(rows)
    if not tests:
        yield Skipped(path, "no evaluated epoch")
        return
    if naming.method is None or naming.task is None:
        raise InputError(f"{path} states neither method nor task; name both with --method and --task")
    arguments = read_yaml(path.with_name("args.yaml"))
    epochs = whole(arguments.get("epochs"))
    if epochs is not None and tests[-1].epoch < epochs - 1:
        yield unfinished(path, tests[-1].epoch + 1, epochs, tests)
        return
    best = best_of(tests)
    task = vtab_task(naming.task)
    settings = {name: number(arguments.get(name)) for name in _SETTINGS}
    yield ForeignResult(
        path,
        naming.method,
        task or naming.task,
        VTAB if task else "",
        seed=whole(arguments.get("seed")),
        final=tests[-1].accuracy,
        best=best.accuracy,
        best_epoch=best.epoch,
        settings={name: value for name, value in settings.items() if value is not None},
        note=_note(arguments.get("val_split"), arguments.get("dataset"), epochs),
        history=tuple(tests),
    )


def _tests(rows: list[list[str]]) -> list[Evaluation]:
    """Return the evaluations; a repeated header starts a resumed run, or one that starts over at epoch 0."""
    tests: list[Evaluation] = []
    header: list[str] = []
    for row in rows:
        if row[:1] == ["epoch"]:
            header = row
            continue
        values = dict(zip(header, row, strict=False))
        epoch, score = whole(values.get("epoch")), percent(values.get("eval_top1"), "eval_top1")
        if epoch is not None and score is not None:
            tests = [test for test in tests if test.epoch < epoch] + [Evaluation(epoch, "test", score)]
    return tests


def _note(split: object, data: object, epochs: int | None) -> str:
    evaluated = f"the evaluated split is --val-split {split or 'not stated'}" + (f" of {data}" if data else "")
    return evaluated if epochs is not None else f"{evaluated}; the last epoch in the file counts as the final one"


def _is_candidate(path: Path) -> bool:
    return any(fnmatch(path.name, pattern) for pattern in ("summary.csv", "results*.csv", "benchmark*.csv"))


TIMM = Harness("timm", "summary.csv of timm", "percent", _is_candidate, _read)
