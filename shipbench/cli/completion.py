"""Shell completion of option values; nothing here imports torch, pandas or timm."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

import typer

from shipbench.record import RunRecord

Completion = Callable[[str], list[str]]


def one_of(*values: str) -> Completion:
    """Return a completion that offers fixed ``values``."""

    def complete(incomplete: str) -> list[str]:
        return _starting_with(incomplete, values)

    return complete


def methods(incomplete: str) -> list[str]:
    """Complete a comma-separated list of methods."""
    from shipbench.methods import list_methods

    return _last_of_list(incomplete, ["all", "zoo", *list_methods()])


def tasks(incomplete: str) -> list[str]:
    """Complete a comma-separated list of suites, groups and tasks."""
    from shipbench.tasks import SUITES, TASKS
    from shipbench.tasks.catalogue import GROUPS

    names = ["all", *(suite.name for suite in SUITES), *(group.lower() for group in GROUPS), *TASKS]
    return _last_of_list(incomplete, dict.fromkeys(names))


def task(incomplete: str) -> list[str]:
    """Complete the name of a single task."""
    from shipbench.tasks import TASKS

    return _starting_with(incomplete, TASKS)


def backbones(incomplete: str) -> list[str]:
    """Complete the default backbones of the suites; listing the other models of timm would import torch."""
    from shipbench.tasks import SUITES

    return _starting_with(incomplete, dict.fromkeys(suite.backbone for suite in SUITES))


def trackers(incomplete: str) -> list[str]:
    """Complete a comma-separated list of trackers."""
    from shipbench.trackers.registry import list_trackers

    return _last_of_list(incomplete, list_trackers())


def engines(incomplete: str) -> list[str]:
    """Complete the name of an installed engine."""
    from shipbench.engine.executors.registry import list_engines

    return _starting_with(incomplete, list_engines())


def harnesses(incomplete: str) -> list[str]:
    """Complete the name of a format of results."""
    from shipbench.results.foreign.registry import harness_names

    return _starting_with(incomplete, harness_names())


def method(incomplete: str) -> list[str]:
    """Complete the name of a single method."""
    from shipbench.methods import list_methods

    return _starting_with(incomplete, list_methods())


def switches(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a comma-separated list of ablation switches of the method that the line names."""
    from shipbench.methods import find_method

    named = find_method(context.params.get("method") or "ship")
    return [] if named is None else _last_of_list(incomplete, named.all_switches)


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the id of a run in the results folder that the line or the environment names."""
    from shipbench.results.lookup import run_ids

    folder = context.params.get("results") or os.environ.get("SHIPBENCH_RESULTS") or "results"
    return _starting_with(incomplete, run_ids(Path(folder)))


def columns(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a comma-separated list of record columns; those of other lists are known once they are made."""
    if context.info_name != "runs":
        return []
    return _last_of_list(incomplete, [column.name for column in fields(RunRecord) if column.name != "settings"])


def _starting_with(incomplete: str, values: Iterable[str]) -> list[str]:
    return [value for value in values if value.startswith(incomplete)]


def _last_of_list(incomplete: str, values: Iterable[str]) -> list[str]:
    """Complete the part after the last comma with values that the list does not yet contain."""
    before, comma, last = incomplete.rpartition(",")
    present = before.split(",")
    return [f"{before}{comma}{value}" for value in _starting_with(last, values) if value not in present]
