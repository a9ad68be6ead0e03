"""``shipbench demo``: a first comparison, made with ``run`` and ``report``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from shipbench.cli import next_steps
from shipbench.cli.options import GridOptions
from shipbench.cli.report import ReportChoices, make_report
from shipbench.cli.run import plan_runs, run_grid
from shipbench.counts import counted
from shipbench.runtime.console import say
from shipbench.runtime.files import check_output
from shipbench.runtime.interrupts import stopping

if TYPE_CHECKING:
    from shipbench.record import RunRecord
    from shipbench.spec import RunSpec


@dataclass(frozen=True)
class Selection:
    """The methods and tasks of a demonstration, as ``--method`` and ``--tasks`` name them."""

    methods: str
    tasks: str


# Together with the report at most four and a half minutes on two cores. Every method trains for as many epochs as its
# recipe says, so that the full demonstration shares these runs.
QUICK = Selection("linear,vpt-deep,ship", "demo-tiny,dsprites-loc")
FULL = Selection("all", "demo")


def demo(
    full: Annotated[bool, typer.Option("--full", help="The five main methods on the whole demo suite.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results/demo"),
    output: Annotated[Path | None, typer.Option(help="Folder of the report; RESULTS/report by default.")] = None,
) -> None:
    """Compare a linear probe, VPT-deep and SHIP on small tasks and make a report: a first look in minutes.

    Prints the two equivalent commands, executes them, and opens the report where there is a display.
    Finished runs are kept: a repeated demo resumes.
    """
    selection = FULL if full else QUICK
    folder = results / "report" if output is None else output
    # Before minutes of training, after which it could not be written.
    check_output(results, "--results")
    check_output(folder, "--results" if output is None else "--output")
    for command in _commands(selection, results, folder):
        say(f"$ {command}")
    records = _run(selection, results)
    make_report(ReportChoices(results=str(results), output=folder))
    say(_conclusion(records))
    page = folder / "index.html"
    if _has_display():
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    next_steps.after_demo(results, output, full=full)


def _commands(selection: Selection, results: Path, output: Path) -> list[str]:
    """Return the equivalent commands."""
    run = ["shipbench", "run", "--method", selection.methods, "--tasks", selection.tasks, "--results", str(results)]
    report = ["shipbench", "report", "--results", str(results), "--output", str(output)]
    return [shlex.join(run), shlex.join(report)]


def _run(selection: Selection, results: Path) -> list[RunRecord]:
    """Execute the runs, which exits if one fails, and return their records."""
    from shipbench.results.store import Store

    options = GridOptions(tasks=selection.tasks, results=results)
    with stopping(options.kept):
        run_grid(selection.methods, options)
    store, plan = Store(results), plan_runs(specs(selection, options), options)
    return [record for planned in plan.runs if (record := store.read(planned.run_id)) is not None]


def specs(selection: Selection, options: GridOptions) -> list[RunSpec]:
    """Return the specs of the runs that a selection stands for."""
    from shipbench.methods import parse_methods
    from shipbench.planning.grid import make_grid, parse_seeds
    from shipbench.tasks import parse_tasks

    methods, tasks = parse_methods(selection.methods), parse_tasks(options.tasks)
    return make_grid(methods, tasks, parse_seeds(options.seeds), options.template(), options.values())


def _conclusion(records: Sequence[RunRecord]) -> str:
    """Return two sentences: which method leads, by how much and on how many tasks, and what that is worth."""
    from shipbench.report.wording.names import method_name

    scores: dict[str, dict[str, float]] = {}
    for record in records:
        scores.setdefault(record.method, {})[record.task] = record.final_test_acc
    (leader, best), (second, next_best), *_ = _ranking(scores)
    tasks = list(scores[leader])
    others = [by_task for method, by_task in scores.items() if method != leader]
    wins = sum(all(scores[leader][task] > by_task[task] for by_task in others) for task in tasks)
    return (
        f"{method_name(leader)} leads with {100 * best:.1f} % test accuracy on average over "
        f"{counted(len(tasks), 'task')}, {100 * (best - next_best):.1f} points ahead of {method_name(second)}, and is "
        f"the best method on {wins} of {len(tasks)}. This is a demonstration, not a benchmark: on small tasks with one "
        "seed, another seed may reverse a difference of a few points."
    )


def _ranking(scores: Mapping[str, Mapping[str, float]]) -> list[tuple[str, float]]:
    """Return the methods with their mean accuracies, the highest first."""
    means = {method: fmean(by_task.values()) for method, by_task in scores.items()}
    return sorted(means.items(), key=lambda item: item[1], reverse=True)


def _has_display() -> bool:
    """Return whether a person sits in front of a screen: not in CI, not behind a pipe."""
    if os.environ.get("CI") or not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
