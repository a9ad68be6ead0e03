"""``shipbench list published``: the published rows of VTAB-1k, as a table, JSON, or CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shipbench.errors import InputError, did_you_mean
from shipbench.settings import comma_list

if TYPE_CHECKING:
    from shipbench.published import PublishedRow

Row = dict[str, Any]
IMPORTABLE = ("method", "task", "accuracy", "params", "params_with_head", "source")


def chosen_rows(methods: str | None, tasks: str | None) -> list[PublishedRow]:
    """Return the published rows of ``methods`` (comma-separated, without case) that have one of ``tasks``.

    Their accuracies are those of ``tasks`` alone. Raises ``InputError`` for a method or task without a row.
    """
    from shipbench.published import published_rows

    wanted = _tasks(tasks)
    prefixes = None if methods is None else _prefixes(methods, [row.method for row in published_rows()])
    rows = [row for row in published_rows() if prefixes is None or _key(row.method).startswith(prefixes)]
    cut = [
        replace(
            row, accuracy_percent={task: row.accuracy_percent[task] for task in wanted if task in row.accuracy_percent}
        )
        for row in rows
    ]
    return [row for row in cut if row.accuracy_percent]


def overview(rows: Sequence[PublishedRow], *, tasks: bool) -> list[Row]:
    """Return few columns that fit a terminal: the accuracies of chosen tasks, or both means of all 19."""
    return [
        {
            "method": row.method,
            "paper": row.paper,
            "year": row.year,
            "params (M)": "" if row.trainable_params_millions is None else f"{row.trainable_params_millions:g}",
            **(_of_tasks(row, rows) if tasks else _means(row)),
        }
        for row in rows
    ]


def importable(rows: Sequence[PublishedRow]) -> list[Row]:
    """Return a row for each row and task, in the columns that ``shipbench import csv`` reads."""
    return [
        dict(zip(IMPORTABLE, (row.method, task, f"{accuracy:g}%", *_count_and_source(row)), strict=True))
        for row in rows
        for task, accuracy in row.accuracy_percent.items()
    ]


def _count_and_source(row: PublishedRow) -> tuple[str, str, str]:
    count = row.trainable_params_millions
    head = {True: "yes", False: "no", None: ""}[row.params_include_head]
    return "" if count is None else f"{count:g}M", head, row.source


def _tasks(text: str | None) -> list[str]:
    from shipbench.results.foreign.tasks import vtab_task
    from shipbench.tasks import get_task
    from shipbench.tasks.catalogue import VTAB

    names = [task.name for task in VTAB.tasks]
    if text is None:
        return names
    wanted = [vtab_task(part) or get_task(part).name for part in comma_list(text)]
    if not wanted:
        raise InputError("--task is empty; name tasks of VTAB-1k, as in --task dtd,svhn")
    for name in wanted:
        if name not in names:
            raise InputError(f"--task: there are no published rows for {name!r}; only VTAB-1k has any")
    return wanted


def _prefixes(text: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the beginnings of method names in a comma list; raise ``InputError`` for one that no name has."""
    parts = comma_list(text)
    if not parts:
        raise InputError("--method is empty; name methods by their beginning, as in --method vpt,ship")
    for part in parts:
        if not (_key(part) and any(_key(name).startswith(_key(part)) for name in names)):
            hint = did_you_mean(part, [name.lower() for name in names])
            raise InputError(f"--method: no published row of {part!r}{hint}; 'shipbench list published' shows all")
    return tuple(map(_key, parts))


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _of_tasks(row: PublishedRow, rows: Sequence[PublishedRow]) -> Mapping[str, str]:
    tasks = dict.fromkeys(task for other in rows for task in other.accuracy_percent)
    return {task: f"{row.accuracy_percent[task]:.1f}" if task in row.accuracy_percent else "" for task in tasks}


def _means(row: PublishedRow) -> Mapping[str, str]:
    from shipbench.statistics import MEAN_OF_GROUPS, MEAN_OF_TASKS, mean_of_groups, mean_of_tasks
    from shipbench.tasks.catalogue import VTAB

    groups = {task.name: task.group for task in VTAB.tasks}
    means = {
        MEAN_OF_GROUPS: mean_of_groups(row.accuracy_percent, groups),
        MEAN_OF_TASKS: mean_of_tasks(row.accuracy_percent, groups),
    }
    return {name: f"{value:.1f}" if value == value else "" for name, value in means.items()}
