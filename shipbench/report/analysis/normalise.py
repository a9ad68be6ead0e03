"""Records made uniform: every column a report reads is there, texts are texts, unknown numbers are NaN."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from shipbench.errors import InputError
from shipbench.report.wording.names import method_order, suite_order, switch_order, task_order
from shipbench.report.wording.text import printable
from shipbench.tasks import SUITES, TASKS, canonical_name

_REQUIRED = ("run_id", "method", "task", "seed")
_TEXTS = {
    "status": "done",
    "protocol": "final",
    "suite": "",
    "group": "",
    "error": "",
    "switches": "",
    "recipe": "",
    "overrides": "",
    "backbone": "",
    "backbone_sha256": "",
    "checkpoint": "",
    "data_fingerprint": "",
    "image_format": "",
    "precision": "",
    "device": "",
    "shipbench_version": "",
    "git_commit": "",
    "created": "",
    "levels": "",
    "affinity": "",
}
_NUMBERS = (
    "image_size",
    "n_train",
    "n_test",
    "chance_acc",
    "trainable_params",
    "trainable_params_without_head",
    "total_params",
    "final_test_acc",
    "best_test_acc",
    "best_test_epoch",
    "val_acc",
    "train_seconds",
    "eval_seconds",
    "train_images_per_second",
    "eval_images_per_second",
    "peak_memory_bytes",
    "flops_per_image",
    "stacked_runs",
    "threads",
)
_ACCURACIES = ("final_test_acc", "best_test_acc", "val_acc")
HISTORY_COLUMNS = ("run_id", "epoch", "split", "loss", "accuracy", "learning_rate")


def uniform_records(results: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of ``results`` with every column that a report reads; raises ``InputError`` if unusable."""
    absent = [name for name in _REQUIRED if name not in results.columns]
    if absent:
        raise InputError(f"the records have no column {absent[0]!r}; a report needs {', '.join(_REQUIRED)}")
    frame = results.reset_index(drop=True).copy()
    texts = {name: _text(frame, name, default) for name, default in _TEXTS.items()}
    numbers = {name: _number(frame, name) for name in _NUMBERS}
    required = {name: _text(frame, name, "") for name in ("run_id", "method")}
    tasks = _text(frame, "task", "").map(canonical_name)
    frame = frame.assign(**{**texts, **numbers, **required, "task": tasks, "seed": _seeds(frame)})
    _check_accuracies(frame)
    return frame.assign(
        switches=frame["switches"].map(_ordered_switches),
        suite=[_suite(task, suite) for task, suite in zip(frame["task"], frame["suite"], strict=True)],
        group=[_group(task, group) for task, group in zip(frame["task"], frame["group"], strict=True)],
    )


def reading_order(records: pd.DataFrame) -> list[int]:
    """Return the index of ``records`` by suite, method, switches, task, seed and run id."""
    names = ["suite", "method", "switches", "task", "seed", "run_id"]
    keys = {
        index: (suite_order(suite), method_order(method), switches, task_order(task), seed, run_id)
        for index, suite, method, switches, task, seed, run_id in records[names].itertuples(name=None)
    }
    return sorted(keys, key=keys.__getitem__)


def uniform_history(history: pd.DataFrame | None) -> pd.DataFrame:
    """Return ``history`` with all its columns; an absent one is an empty one."""
    frame = pd.DataFrame() if history is None else history
    return frame.reindex(columns=list(HISTORY_COLUMNS))


def json_list(text: str) -> list[Any]:
    """Read a JSON list from a record's text; an empty or unreadable one is an empty list."""
    try:
        value = json.loads(text) if text else []
    except json.JSONDecodeError:
        return []
    return value if isinstance(value, list) else []


def _text(frame: pd.DataFrame, name: str, default: str) -> pd.Series[str]:
    if name not in frame.columns:
        return pd.Series(default, index=frame.index, dtype=object)
    column = frame[name].astype(object)
    known = column.where(column.notna(), default)
    return known.map(lambda value: printable(str(value)) or default).astype(object)


def _number(frame: pd.DataFrame, name: str) -> pd.Series[float]:
    if name not in frame.columns:
        return pd.Series(float("nan"), index=frame.index)
    return pd.to_numeric(frame[name], errors="coerce").astype(float)


def _seeds(frame: pd.DataFrame) -> pd.Series[int]:
    seeds = pd.to_numeric(frame["seed"], errors="coerce")
    if seeds.isna().any():
        run = frame.loc[seeds.isna(), "run_id"].iloc[0]
        raise InputError(f"run {run} has no whole number as its seed; every record needs one")
    return seeds.astype(int)


def _check_accuracies(frame: pd.DataFrame) -> None:
    for name in _ACCURACIES:
        wrong = frame[(frame[name] < 0) | (frame[name] > 1)]
        if len(wrong):
            run, value = wrong["run_id"].iloc[0], wrong[name].iloc[0]
            raise InputError(f"run {run} has {name} {value:g}; accuracies in records are fractions from 0 to 1")


def _ordered_switches(switches: str) -> str:
    names = {part.strip() for part in switches.replace(",", "+").split("+") if part.strip()}
    return "+".join(sorted(names, key=switch_order))


def _suite(task: str, suite: str) -> str:
    """Trust the catalogue for tasks it knows; a stranger never joins a known suite and its means."""
    if task in TASKS:
        return TASKS[task].suite
    return "other" if suite in ("", *(known.name for known in SUITES)) else suite


def _group(task: str, group: str) -> str:
    return TASKS[task].group if task in TASKS else group or "Other"
