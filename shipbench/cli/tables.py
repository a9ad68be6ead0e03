"""Plans and results as tables on standard output."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from shipbench.planning.plan import Plan
from shipbench.planning.tuning import Choice, Search, Trial
from shipbench.record import RunRecord
from shipbench.results.store import Store
from shipbench.runtime.console import out_console
from shipbench.tasks.catalogue import GROUPS
from shipbench.tasks.registry import TASKS


def print_plan(plan: Plan) -> None:
    """Print every run of a plan with its state."""
    table = Table("run", "method", "task", "seed", "state", "settings")
    chosen = {run.run_id for run in plan.chosen}
    for run in plan.runs:
        changed = ", ".join(f"{key}={value}" for key, value in dict(run.spec.overrides).items())
        state = run.state.value if run.run_id not in chosen else f"{run.state.value}: will run"
        table.add_row(run.run_id, run.spec.method, run.spec.task, str(run.spec.seed), state, changed)
    out_console().print(table)


def print_results(plan: Plan, results: Path) -> None:
    """Print test accuracy in percent, tasks x methods, with the mean and sample deviation over seeds."""
    store = Store(results)
    records = [record for run in plan.runs if (record := store.read(run.run_id)) is not None]
    named = _columns(records)
    columns = list(dict.fromkeys(named.values()))
    cells = _by_cell(records, named)
    table = Table("task", *columns, title="final test accuracy, % (mean over seeds ± sample deviation)")
    tasks = list(dict.fromkeys(run.spec.resolved.task.name for run in plan.runs))
    for task in tasks:
        table.add_row(task, *(_show(cells[column, task]) for column in columns))
    if len(tasks) > 1:
        table.add_section()
        for name, average in (("mean of groups", _mean_of_groups), ("mean of tasks", _mean_of_tasks)):
            table.add_row(name, *(_percent(average(column, tasks, cells)) for column in columns))
    out_console().print(table)
    if any(record.suite.startswith("demo") for record in records):
        out_console().print("The demo suite is a demonstration and a regression net, not a benchmark.")


def print_choice(search: Search, trials: Sequence[Trial], choice: Choice) -> None:
    """Print every point of a search with its validation accuracy in percent, the winner marked, and ties said."""
    title = f"{search.method} on {', '.join(search.tasks)}: accuracy on val200, %"
    table = Table(*search.axes, "val acc", "trainable", "", title=title)
    for i, trial in enumerate(trials):
        score = f"failed: {trial.error}" if trial.error else _trial_score(search, trial)
        mark = "chosen" if i == choice.winner else "tied" if i in choice.tied else ""
        cost = "" if math.isnan(trial.trainable_params) else f"{trial.trainable_params:,.0f}"
        table.add_row(*(str(value) for value in trial.settings.values()), score, cost, mark)
    out_console().print(table)
    out_console().print(_verdict(trials, choice))


def _trial_score(search: Search, trial: Trial) -> str:
    """Spread is over seeds: it is left out where several tasks are averaged."""
    return _show(list(trial.accuracies)) if len(search.tasks) == 1 else f"{100 * trial.mean:.1f}"


def _verdict(trials: Sequence[Trial], choice: Choice) -> str:
    failed = sum(bool(trial.error) for trial in trials)
    excluded = f"; {failed} of {len(trials)} settings excluded, as a run of theirs failed" if failed else ""
    if choice.winner is None:
        return "nothing chosen: a run of every setting failed"
    settings = ", ".join(f"{key}={value}" for key, value in trials[choice.winner].settings.items())
    tie = f"; {len(choice.tied)} tied, decided by: {choice.broken_by}" if choice.tied else ""
    return f"chosen: {settings}{tie}{excluded}"


Cells = dict[tuple[str, str], list[float | None]]


def _columns(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return the column of every run by its id: method, switches, and what a sweep varies; seeds alone share a cell."""
    alike: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        alike[_arm(record), record.task].append(record)
    varied: dict[str, set[str]] = defaultdict(set)
    for (arm, _), group in alike.items():
        first = group[0].settings
        varied[arm] |= {key for record in group for key in first if record.settings.get(key) != first[key]}
    return {record.run_id: _column(record, sorted(varied[_arm(record)])) for record in records}


def _arm(record: RunRecord) -> str:
    return f"{record.method} [{record.switches}]" if record.switches else record.method


def _column(record: RunRecord, varied: Iterable[str]) -> str:
    return ", ".join([_arm(record), *(f"{key}={record.settings.get(key)}" for key in varied)])


def _by_cell(records: Iterable[RunRecord], columns: Mapping[str, str]) -> Cells:
    cells: Cells = defaultdict(list)
    for record in records:
        cells[columns[record.run_id], record.task].append(record.final_test_acc if record.done else None)
    return cells


def _show(values: Sequence[float | None]) -> str:
    """A cell with a failed run says so; it is never silently averaged over fewer seeds."""
    if not values:
        return "-"
    done = [value for value in values if value is not None]
    failed = f" ({len(values) - len(done)} failed)" if len(done) < len(values) else ""
    if not done:
        return failed.strip()
    spread = f" ± {100 * statistics.stdev(done):.1f}" if len(done) > 1 else ""
    return f"{100 * statistics.fmean(done):.1f}{spread}{failed}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _mean_of_tasks(column: str, tasks: list[str], cells: Cells) -> float | None:
    """Return the mean over tasks, or None if a task has no value or a failed run."""
    values = [value for task in tasks for value in (cells[column, task] or [None])]
    if any(value is None for value in values):
        return None
    return statistics.fmean(statistics.fmean(v for v in cells[column, t] if v is not None) for t in tasks)


def _mean_of_groups(column: str, tasks: list[str], cells: Cells) -> float | None:
    groups = [[task for task in tasks if TASKS[task].group == group] for group in GROUPS]
    means = [_mean_of_tasks(column, members, cells) for members in groups if members]
    known = [mean for mean in means if mean is not None]
    return statistics.fmean(known) if len(known) == len(means) == len(GROUPS) else None
