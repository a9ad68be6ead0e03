"""Tables of plans, results and tuning choices on standard output."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from rich.table import Table

from shipbench.cli.layout import make_table
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.planning.tuning import Choice, Decision, Search, Trial, ends_of_grid
from shipbench.record import ACCURACY, RunRecord
from shipbench.results.store import Store
from shipbench.runtime.console import out_console
from shipbench.tasks import Task, suite_of, suite_tasks
from shipbench.tasks.catalogue import split_titles

Cells: TypeAlias = Mapping[tuple[str, str], Sequence[RunRecord]]
Average: TypeAlias = Callable[[Mapping[str, float]], float]

_COLLAPSED = "\N{DOUBLE DAGGER}"
_COLLAPSED_NOTE = (
    f"{_COLLAPSED} collapsed: at least one seed is no better than always answering the most frequent class; "
    "more seeds (--seeds 0-4) show how often this happens."
)


def print_plan(plan: Plan) -> None:
    """Print every run of a plan with its state."""
    table = make_table("run", "method", "task", "seed", "state", "settings")
    chosen = {run.run_id for run in plan.chosen}
    for run in plan.runs:
        changed = ", ".join(f"{key}={value}" for key, value in dict(run.spec.overrides).items())
        state = run.state.value if run.run_id not in chosen else f"{run.state.value}: will run"
        switches = run.spec.resolved.switches
        method = f"{run.spec.method} [{switches}]" if switches else run.spec.method
        table.add_row(run.run_id, method, run.spec.resolved.task.name, str(run.spec.seed), state, changed)
    out_console().print(table)


def print_results(plan: Plan, results: Path) -> None:
    """Print the final test accuracy in percent for every task and method, averages, and notes on how to read them."""
    store = Store(results)
    records = [_as_planned(record, run) for run in plan.runs if (record := store.read(run.run_id)) is not None]
    tasks = {run.spec.resolved.task.name: run.spec.resolved.task for run in plan.runs}
    console = out_console()
    console.print(result_table(records, list(tasks.values())))
    if any(record.collapsed for record in records):
        console.print(_COLLAPSED_NOTE)
    for caution in dict.fromkeys(suite_of(task).caution for task in tasks.values()):
        if caution:
            console.print(caution)


def _as_planned(record: RunRecord, run: PlannedRun) -> RunRecord:
    """Return a record with the name and metric that its task has now; neither is part of the run id."""
    task = run.spec.resolved.task
    return replace(record, task=task.name, suite=task.suite, headline_metric=task.metric)


def result_table(records: Sequence[RunRecord], tasks: Sequence[Task]) -> Table:
    """Return the test accuracies of ``records`` in percent: the mean over seeds with its standard deviation.

    Tasks and the averages of each suite are rows and methods are columns, or the reverse if there are more methods.
    """
    columns = _columns(records)
    methods = list(dict.fromkeys(columns.values()))
    cells = _by_cell(records, columns)
    sections = [_suite_rows(members, methods, cells) for members in _by_suite(tasks)]
    several = any(len(of_cell) > 1 for of_cell in cells.values())
    title = f"final test accuracy, %{' (mean over seeds ± standard deviation)' if several else ''}"
    if len(methods) > sum(len(rows) for rows in sections):
        labels, *scores = zip(*chain(*sections), strict=True)
        by_method = [(method, *row) for method, row in zip(methods, scores, strict=True)]
        return _filled(make_table("method", *labels, title=title), [by_method])
    return _filled(make_table("task", *methods, title=title), sections)


def _filled(table: Table, sections: Iterable[Iterable[Sequence[str]]]) -> Table:
    for rows in sections:
        for row in rows:
            table.add_row(*row)
        table.add_section()
    return table


def _by_suite(tasks: Sequence[Task]) -> list[list[Task]]:
    suites: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        suites[task.suite].append(task)
    return list(suites.values())


def _suite_rows(tasks: Sequence[Task], methods: Sequence[str], cells: Cells) -> list[tuple[str, ...]]:
    """Return a row per task of one suite, then a row per average if there are several tasks."""
    averages = _averages(tasks) if len(tasks) > 1 else {}
    names = [f"{name} (task)" if name in averages else name for name in map(_row_name, tasks)]
    rows = [(n, *(_score(cells[method, t.name]) for method in methods)) for n, t in zip(names, tasks, strict=True)]
    accuracies = [{task.name: _accuracy(cells[method, task.name]) for task in tasks} for method in methods]
    means = ((name, *map(_percent, map(average, accuracies))) for name, average in averages.items())
    return [*rows, *means]


def _row_name(task: Task) -> str:
    """Return the name of a task with its metric, unless that is the plain accuracy."""
    return task.name if task.metric == ACCURACY else f"{task.name} (mean per class)"


def _averages(tasks: Sequence[Task]) -> dict[str, Average]:
    """Return the averages that ``tasks`` of one suite allow, by name; part of a suite has no mean of groups."""
    from shipbench.statistics import MEAN_OF_GROUPS, MEAN_OF_TASKS, mean_of_groups, mean_of_tasks, mean_of_tasks_name

    groups: dict[str, str] = {task.name: task.group for task in tasks}
    name = mean_of_tasks_name(groups, suite_tasks(tasks[0]))
    if name != MEAN_OF_TASKS:
        return {name: mean_of_tasks}
    return {MEAN_OF_GROUPS: partial(mean_of_groups, groups=groups), MEAN_OF_TASKS: mean_of_tasks}


def _columns(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return the column name of every run by its id, so that only runs that differ in nothing but seed share a cell.

    The name holds the method, its switches, and the settings that vary between runs of the same task.
    """
    same_cell: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        same_cell[_variant(record), record.task].append(record)
    varied: dict[str, set[str]] = defaultdict(set)
    for (variant, _), group in same_cell.items():
        first = group[0].settings
        varied[variant] |= {key for record in group for key in first if record.settings.get(key) != first[key]}
    return {record.run_id: _column(record, sorted(varied[_variant(record)])) for record in records}


def _variant(record: RunRecord) -> str:
    variant = f"{record.method} [{record.switches}]" if record.switches else record.method
    return f"{variant}, {record.shots} per class" if record.shots else variant


def _column(record: RunRecord, varied: Iterable[str]) -> str:
    return ", ".join([_variant(record), *(f"{key}={record.settings.get(key)}" for key in varied)])


def _by_cell(records: Iterable[RunRecord], columns: Mapping[str, str]) -> Cells:
    cells: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        cells[columns[record.run_id], record.task].append(record)
    return cells


def _score(records: Sequence[RunRecord]) -> str:
    """Return the text of a cell; it counts failed runs and marks collapsed ones."""
    if not records:
        return "-"
    done = [record for record in records if record.done]
    failed = f"({len(records) - len(done)} failed)" if len(done) < len(records) else ""
    mark = _COLLAPSED if any(record.collapsed for record in done) else ""
    score = f"{_mean_and_deviation([record.headline_acc for record in done])}{mark}" if done else ""
    return f"{score} {failed}".strip()


def _accuracy(records: Sequence[RunRecord]) -> float:
    """Return the mean accuracy of a cell, or NaN if a run is missing or failed: fewer seeds do not compare."""
    if not records or not all(record.done for record in records):
        return math.nan
    return statistics.fmean(record.headline_acc for record in records)


def _mean_and_deviation(accuracies: Sequence[float]) -> str:
    deviation = f" ± {100 * statistics.stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    return f"{100 * statistics.fmean(accuracies):.1f}{deviation}"


def _percent(accuracy: float) -> str:
    return "-" if math.isnan(accuracy) else f"{100 * accuracy:.1f}"


def print_choice(decision: Decision) -> None:
    """Print the validation accuracy of every point of a search in percent, then the winner and what broke a tie."""
    search, trials, choice = decision.search, decision.trials, decision.choice
    shots = search.specs[0].shots
    per_class = f", {shots} per class" if shots else ""
    scored_on = split_titles(search.opened_tasks, "val200")
    names = ", ".join(map(_row_name, search.opened_tasks))
    title = f"{search.method} on {names}{per_class}: accuracy on {scored_on}, %"
    table = make_table(*search.axes, "val acc", "trainable", "", title=title)
    for i, trial in enumerate(trials):
        score = f"failed: {trial.error}" if trial.error else _trial_score(search, trial)
        mark = "chosen" if i == choice.winner else "tied" if i in choice.tied else ""
        cost = "" if math.isnan(trial.trainable_params) else f"{trial.trainable_params:,.0f}"
        table.add_row(*(str(value) for value in trial.settings.values()), score, cost, mark)
    console = out_console()
    console.print(table)
    console.print(_verdict(trials, choice))


def _trial_score(search: Search, trial: Trial) -> str:
    """Return the score of a trial; a deviation over several tasks would not be one over seeds."""
    return _mean_and_deviation(trial.accuracies) if len(search.tasks) == 1 else _percent(trial.mean)


def _verdict(trials: Sequence[Trial], choice: Choice) -> str:
    if choice.winner is None:
        return "nothing chosen: every setting has a failed run"
    settings = ", ".join(f"{key}={value}" for key, value in trials[choice.winner].settings.items())
    tie = f"; {len(choice.tied)} tied, decided by: {choice.broken_by}" if choice.tied else ""
    return f"chosen: {settings}{tie}{excluded_note(trials)}{ends_note(trials, choice)}"


def excluded_note(trials: Sequence[Trial]) -> str:
    """Return a clause on the settings that no choice can fall on, because a run of theirs has no accuracy."""
    failed = sum(bool(trial.error) for trial in trials)
    return f"; {failed} of {len(trials)} settings excluded because of a failed run" if failed else ""


def ends_note(trials: Sequence[Trial], choice: Choice) -> str:
    """Return a clause for every chosen number beyond which the grid has no value."""
    return "".join(f"; {name} is the {end} of the grid" for name, end in ends_of_grid(trials, choice).items())
