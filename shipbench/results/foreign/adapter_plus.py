"""visinf/adapter_plus: ``logs/metrics.csv`` beside ``hparams.yaml``, and ``eval.log`` for many runs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
from shipbench.results.foreign.text import fraction, number, read_text, read_yaml, whole

_METRICS, _EVALUATIONS = "metrics.csv", "eval.log"


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    yield from _evaluations(path, naming) if path.name == _EVALUATIONS else _metrics(path, naming)


def _metrics(path: Path, naming: Naming) -> Iterator[Reading]:
    hparams = read_yaml(path.with_name("hparams.yaml"))
    config = _table(hparams, "cfg")
    data = _table(config, "data")
    if data.get("val_split") != "test":
        split = data.get("val_split", "not stated")
        yield Skipped(path, f"the evaluated split is not test: cfg.data.val_split is {split}")
        return
    tests = _tests(path)
    if not tests:
        yield Skipped(path, "no value in val/accuracy: the run ended before its evaluation")
        return
    epochs = whole(_table(config, "train").get("epochs"))
    if epochs is not None and tests[-1].epoch < epochs - 1:
        yield unfinished(path, tests[-1].epoch + 1, epochs, tests)
        return
    best = best_of(tests)
    parameters = number(hparams.get("trainable_params"))
    name = str(config.get("name") or path.parents[3].name)
    yield ForeignResult(
        path,
        naming.method or _method(name),
        *_task(str(data.get("dataset", "")), data.get("dataset_group") == "fgvc"),
        seed=whole(config.get("seed")),
        final=tests[-1].accuracy,
        best=best.accuracy,
        best_epoch=best.epoch,
        parameters=parameters,
        parameters_as_written=parameters,
        with_head=True,
        classes=whole(hparams.get("num_classes")),
        settings=_scalars("adapter", _table(config, "adapter")),
        history=tuple(tests),
    )


def _tests(path: Path) -> list[Evaluation]:
    rows = csv.DictReader(io.StringIO(read_text(path)))
    scores = [(whole(row.get("epoch")), fraction(row.get("val/accuracy"), "val/accuracy")) for row in rows]
    return [Evaluation(epoch, "test", score) for epoch, score in scores if epoch is not None and score is not None]


def _evaluations(path: Path, naming: Naming) -> Iterator[Reading]:
    """Yield a result for each task and seed; the file is appended to, so that a later line replaces an earlier one."""
    lines = [line.split("\t") for line in read_text(path).splitlines() if line.strip()]
    latest = {(line[0].strip(), whole(line[1])): line[2] for line in lines if len(line) == 3}
    if not latest:
        yield Skipped(path, "no line with a task, a seed and an accuracy, separated by tabs")
    for (name, seed), value in latest.items():
        if path.with_name(name).joinpath(f"seed={seed}", "logs", _METRICS).exists():
            yield Skipped(path, f"{name}, seed {seed}: read from {_METRICS} of the same run")
            continue
        accuracy = fraction(value, "the accuracy")
        task, suite = _task(name, path.parent.parent.name == "fgvc")
        method = naming.method or _method(path.parent.name)
        yield ForeignResult(path, method, task, suite, row=f"{name} {seed}", seed=seed, final=accuracy)


def _task(name: str, fgvc: bool) -> tuple[str, str]:
    task = None if fgvc else vtab_task(name)
    return (task, VTAB) if task else (name, "fgvc" if fgvc else "")


def _method(name: str) -> str:
    return re.sub(r"_dim\d+$", "", name).replace("_", "-")


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = content.get(name)
    return table if isinstance(table, Mapping) else {}


def _scalars(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in table.items() if isinstance(value, (bool, int, float, str))}


def _is_candidate(path: Path) -> bool:
    return path.name in (_METRICS, _EVALUATIONS)


ADAPTER_PLUS = Harness(
    "adapter-plus", f"{_METRICS} or {_EVALUATIONS} of visinf/adapter_plus", "fraction", _is_candidate, _read
)
