"""Published results as data files that name their sources.

``published_vtab1k.json``: per-task accuracies of published methods, each row with its paper, backbone and protocol;
``petl_settings.json``: settings by method and task;
``ship_results.json``: SHIP's own results, settings and levels;
``references.bib``: the papers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

PUBLISHED_SUITE = "vtab-1k"
"""The suite that all published rows, runs and settings are of."""

# Recipes (method, recipe) whose authors chose the settings by test accuracy: ship_results.json states it for SHIP,
# and RepAdapter's scripts search the scale with the evaluation on the test split.
CHOSEN_ON_TEST = frozenset({("ship", "published"), ("repadapter", "published"), ("repadapter-attn", "published")})


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published VTAB-1k table, with accuracies in percent by canonical task name."""

    method: str
    paper: str
    venue: str
    year: int
    backbone: str
    accuracy_percent: Mapping[str, float]
    trainable_params_millions: float | None
    params_include_head: bool | None
    protocol: str
    notes: str
    inconsistencies: tuple[str, ...]

    @property
    def source(self) -> str:
        """The paper with its venue and year, which is the ``source`` of an imported copy of the row."""
        return f"{self.paper}, {self.venue} {self.year}"


@dataclass(frozen=True)
class PublishedShipRun:
    """The published SHIP run on one task: settings, levels and best test accuracy in percent."""

    task: str
    best_test_accuracy_percent: float
    lr: float
    weight_decay: float
    threshold: float
    prompt_length: int
    levels: tuple[int, ...]
    published_parameter_count: int
    trainable_parameters_used: int


def _read(name: str) -> Any:
    return json.loads(resources.files(__name__).joinpath(name).read_text(encoding="utf-8"))


def _row(entry: dict[str, Any]) -> PublishedRow:
    return PublishedRow(
        method=entry["method"],
        paper=entry["paper"],
        venue=entry["venue"],
        year=entry["year"],
        backbone=entry["backbone"],
        accuracy_percent=entry["accuracy_percent"],
        trainable_params_millions=entry.get("trainable_params_millions"),
        params_include_head=entry.get("params_include_head"),
        protocol=entry.get("protocol", ""),
        notes=entry["notes"],
        inconsistencies=tuple(entry["inconsistencies"]),
    )


def _ship_run(entry: dict[str, Any]) -> PublishedShipRun:
    return PublishedShipRun(
        task=entry["task"],
        best_test_accuracy_percent=entry["best_test_accuracy_percent"],
        lr=entry["lr"],
        weight_decay=entry["weight_decay"],
        threshold=entry["threshold"],
        prompt_length=entry["prompt_length"],
        levels=tuple(entry["levels"]),
        published_parameter_count=entry["published_parameter_count"],
        trainable_parameters_used=entry["trainable_parameters_used"],
    )


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Return every published VTAB-1k row, in the order of the data file."""
    return tuple(_row(entry) for entry in _read("published_vtab1k.json"))


@cache
def published_ship_runs() -> Mapping[str, PublishedShipRun]:
    """Return the published SHIP run of every task, by canonical task name."""
    return {entry["task"]: _ship_run(entry) for entry in _read("ship_results.json")["results"]}


@cache
def published_settings() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Return the published settings of methods with settings for each task: method, canonical task name, setting."""
    return {method: tasks for method, tasks in _read("petl_settings.json").items() if method != "about"}
