"""visinf/adapter_plus: ``logs/metrics.csv`` beside ``hparams.yaml``, and ``eval.log`` for many runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shipbench.results.foreign.metric_tables import read_metrics
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
from shipbench.results.foreign.text import folders_above, fraction, number, read_text, read_yaml, whole

_METRICS, _EVALUATIONS = "metrics.csv", "eval.log"
# What a configuration adds to the backbone.
_PARTS = ("adapter", "lora", "prompt")
# Methods that the other formats, and shipbench, call otherwise.
_METHODS = {"finetune": "full", "classifier": "linear"}
_ABLATIONS = "ablations"


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    yield from _evaluations(path, naming) if path.name == _EVALUATIONS else _metrics(path, naming)


def _metrics(path: Path, naming: Naming) -> Iterator[Reading]:
    hparams = read_yaml(path.with_name("hparams.yaml"))
    config = _table(hparams, "cfg")
    data = _table(config, "data")
    if data.get("val_split") != "test":
        split = data.get("val_split", "not stated") if hparams else "not stated, because there is no hparams.yaml"
        yield Skipped(path, f"the evaluated split is not test: cfg.data.val_split is {split}")
        return
    table = read_metrics(path, "val/accuracy", fraction)
    if not table.tests:
        yield Skipped(path, "no value in val/accuracy: the run ended before its evaluation")
        return
    epochs = whole(_table(config, "train").get("epochs"))
    if skipped := table.why_without_result(path, epochs):
        yield skipped
        return
    name, task, seed = _names_in_path(path)
    group = "fgvc" if data.get("dataset_group") == "fgvc" else "vtab"
    yield ForeignResult(
        path,
        naming.method or _method(str(config.get("name") or name)),
        *task_and_suite(str(data.get("dataset") or task), group),
        seed=whole(config.get("seed", seed)),
        parameters=number(hparams.get("trainable_params")),
        with_head=True,
        classes=whole(hparams.get("num_classes")),
        other_head="vit_base" not in str(_table(config, "vit").get("model", "vit_base")),
        settings={key: value for name in _PARTS for key, value in _scalars(name, _table(config, name)).items()},
        note="; ".join(filter(None, [_training_split(data), "" if epochs is not None else LAST_COUNTS])),
        **scores_of(table.tests),
    )


def _training_split(data: Mapping[str, Any]) -> str:
    """Return a note if the run trained on less than train and val together."""
    split = data.get("train_split", "trainval")
    return "" if split == "trainval" else f"trained on {split} only"


def _names_in_path(path: Path) -> tuple[str, str, str]:
    """Return the configuration's name, the task and the seed in ``NAME/TASK/seed=SEED/logs``; empty in other paths."""
    name, task, seed, _ = folders_above(path, 4)
    return (name, task, seed.removeprefix("seed=")) if seed.startswith("seed=") else ("", "", "")


def _evaluations(path: Path, naming: Naming) -> Iterator[Reading]:
    """Yield a result for each task and seed; the file is appended to, so that a later line replaces an earlier one."""
    above, group, name = folders_above(path, 3)
    latest: dict[tuple[str, int], float] = {}
    for position, line in enumerate(read_text(path).splitlines(), 1):
        cells = line.split()
        seed, accuracy = (whole(cells[1]), fraction(cells[2], "the accuracy")) if len(cells) == 3 else (None, None)
        if seed is not None and accuracy is not None:
            latest[cells[0], seed] = accuracy
        elif cells:
            yield Skipped(path, f"line {position} is not a task, a seed and an accuracy")
    for (task, seed), accuracy in latest.items():
        if path.with_name(task).joinpath(f"seed={seed}", "logs", _METRICS).exists():
            yield Skipped(path, f"{task}, seed {seed}: read from {_METRICS} of the same run")
            continue
        if above == _ABLATIONS:
            yield Skipped(path, f"{task}, seed {seed}: the ablations are scored on val, never on test")
            continue
        place = task_and_suite(task, "fgvc" if group == "fgvc" else "vtab")
        method = naming.method or _method(name)
        yield ForeignResult(path, method, *place, row=f"{task} {seed}", seed=seed, final=accuracy)


def _method(name: str) -> str:
    return _METHODS.get(name) or re.sub(r"_dim\d+$", "", name).replace("_", "-")


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
