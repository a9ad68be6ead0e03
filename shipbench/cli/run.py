"""``shipbench run``."""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from shipbench.cli import completion, next_steps
from shipbench.cli.documents import print_document, run_rows
from shipbench.cli.options import GridOptions, Methods, grid_command
from shipbench.counts import counted
from shipbench.errors import InputError, value_of
from shipbench.runtime.console import say
from shipbench.settings import comma_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from shipbench.planning.plan import Plan, PlannedRun
    from shipbench.spec import RunSpec
    from shipbench.tasks import Task

Planned = TypeVar("Planned")


@grid_command
def run(
    options: GridOptions,
    method: Methods,
    exclude: Annotated[
        str,
        typer.Option(
            help="Methods to leave out, comma-separated, as in --method zoo --exclude 'peft-*'.",
            autocompletion=completion.methods,
        ),
    ] = "",
) -> None:
    """Train and test methods on tasks; skip runs that are done already."""
    run_grid(method, options, exclude)
    next_steps.after_run(options.results, dry_run=options.dry_run)


def run_grid(methods: str, options: GridOptions, exclude: str = "") -> None:
    """Execute the runs of ``methods`` but for those of ``exclude``, both named as for the options of the command.

    Exits with an error if one of the runs fails.
    """
    from shipbench.methods import parse_methods
    from shipbench.planning.grid import make_grid, parse_seeds, parse_shots
    from shipbench.planning.plan import UnusableMethodsError

    template = options.template()

    def make_specs(tasks: Sequence[Task]) -> list[RunSpec]:
        seeds, shots = parse_seeds(options.seeds), parse_shots(options.shots)
        return make_grid(parse_methods(methods, exclude), tasks, seeds, template, options.values(), shots)

    specs = checked(make_specs, template, options, partial(parse_methods, methods, exclude))
    try:
        execute(specs, options)
    except UnusableMethodsError as error:
        if {spec.method for spec in specs} <= set(error.methods):
            raise
        left_out = ",".join([*comma_list(exclude), *error.methods])
        raise InputError(f"{error}; or leave them out with --exclude {quote(left_out)}") from error


def checked(
    make: Callable[[Sequence[Task]], Planned],
    template: RunSpec,
    options: GridOptions,
    *checks: Callable[[], object],
) -> Planned:
    """Return ``make(tasks)``; raise one ``InputError`` for everything that can be refused without the network.

    ``checks`` are steps of ``make`` that need no task, so that it does not hide their errors behind earlier ones.
    """
    from shipbench.planning.grid import parse_seeds, parse_shots
    from shipbench.planning.preflight import preflight
    from shipbench.tasks import parse_tasks

    refused: list[str] = []
    tasks: list[Task] = value_of(lambda: parse_tasks(options.tasks), [], refused)
    shots: list[int | None] = value_of(lambda: parse_shots(options.shots), [None], refused)
    elsewhere = value_of(lambda: options.executor().remote, False, refused)
    results = None if options.dry_run else options.results
    others = (*checks, options.values, lambda: parse_seeds(options.seeds), options.trackers)
    return preflight(make, template, tasks, results, shots=shots, elsewhere=elsewhere, others=others, refused=refused)


def execute(specs: list[RunSpec], options: GridOptions, command: str = "run") -> None:
    """Plan specs, print the plan's summary, execute it and print the results; exit with 1 if a run failed.

    With ``--json``, the results are a document of the schema of ``command``.
    """
    from shipbench.cli.tables import print_plan, print_results

    plan = plan_to_execute(specs, options)
    if not options.dry_run:
        execute_chosen(plan, options)
    if options.as_json:
        runs = run_rows(plan, options.results)
        print_document(f"{command}/1", results=options.results, dry_run=options.dry_run, runs=runs)
    elif options.dry_run:
        print_plan(plan)
    else:
        print_results(plan, options.results)
    if not options.dry_run and say_failed(plan, options):
        sys.exit(1)


def plan_to_execute(specs: list[RunSpec], options: GridOptions) -> Plan:
    """Return the plan of specs after printing its summary; raise ``InputError`` if it cannot be executed."""
    options.executor().check()
    plan = plan_runs(specs, options, say)
    if not plan.runs:
        raise InputError("there is nothing to run; name at least one method, task and seed")
    say(plan.summary())
    chosen = {run.run_id for run in plan.chosen}
    for sentence in recorded_otherwise([run for run in plan.runs if run.run_id not in chosen], options.results):
        say(f"{sentence}; to change that, repeat with --force")
    return plan


def recorded_otherwise(runs: Iterable[PlannedRun], results: Path) -> list[str]:
    """Return a sentence on the finished runs of each task that has another name, or suite, than in their records."""
    from shipbench.planning.plan import State
    from shipbench.results.store import Store

    store = Store(results)
    numbers: Counter[tuple[str, str, str]] = Counter()
    for run in runs:
        task = run.spec.resolved.task
        record = None if task.catalogued or run.state is not State.DONE else store.read(run.run_id)
        if record is not None and (record.task, record.suite) != (task.name, task.suite):
            numbers[task.name, record.task, record.suite] += 1
    return [
        f"{name}: a report shows {counted(number, 'finished run')} as task {task} of suite {suite}, as recorded"
        for (name, task, suite), number in numbers.items()
    ]


def plan_runs(specs: Sequence[RunSpec], options: GridOptions, say: Callable[[str], None] | None = None) -> Plan:
    """Look up specs in the results folder; ``say``, if given, receives lines about the weights in a checkpoint file.

    Raises ``InputError`` for specs that cannot be executed.
    """
    from shipbench.planning.plan import make_plan
    from shipbench.results.store import Store

    store, remote = Store(options.results), options.executor().remote
    return make_plan(specs, store, force=options.force, retry_failed=options.retry_failed, elsewhere=remote, say=say)


def say_failed(plan: Plan, options: GridOptions, runs: str = "runs") -> bool:
    """Say how many runs of an executed plan failed, now or before; return whether any did. ``runs`` names them."""
    from shipbench.results.lookup import list_runs_command
    from shipbench.results.store import Store

    statuses = [Store(options.results).status(run.run_id) for run in plan.chosen]
    failed, before = statuses.count("failed"), len(plan.left_as_failed)
    if failed:
        say(f"{failed} of {len(statuses)} {runs} failed; see: {list_runs_command(options.results)}")
    if before:
        say(f"{before} of {len(plan.runs)} {runs} failed before and were not repeated; --retry-failed repeats them")
    return failed > 0 or before > 0


def execute_chosen(plan: Plan, options: GridOptions) -> None:
    """Prepare what the chosen runs of a plan share, then execute them with a progress display."""
    if not plan.chosen:
        # Without the imports below, which load torch and take longer than everything else.
        from shipbench.results import claims
        from shipbench.results.store import Store

        claims.tidy(Store(options.results))
        return
    from shipbench.cli.progress import make_display
    from shipbench.cli.tracking import tracked
    from shipbench.engine.supervisor import execute_plan
    from shipbench.engine.warmup import make_ready
    from shipbench.results.plans import remove_ended, write_plan

    make_ready(plan)
    note = write_plan(options.results, options.engine, [run.entry for run in plan.chosen])
    with make_display(plan.chosen, options.progress) as display, tracked(plan, options, display) as listener:
        execute_plan(plan, options.results, options.executor(), listener)
    note.unlink(missing_ok=True)
    remove_ended(options.results)
