"""``shipbench tune``."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from shipbench.cli import next_steps
from shipbench.cli.documents import print_document, run_rows
from shipbench.cli.options import GridOptions, Methods, grid_command
from shipbench.cli.run import checked, execute_chosen, plan_runs, plan_to_execute, say_failed
from shipbench.counts import counted
from shipbench.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shipbench.planning.plan import Plan
    from shipbench.planning.tuning import Decision, Search
    from shipbench.tasks import Task


@grid_command
def tune(
    options: GridOptions,
    method: Methods,
    grid: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=V1,V2|NAME",
            help="Values to try, or a grid of the method, such as small or published; repeatable.",
        ),
    ],
    tuning_seeds: Annotated[
        str | None, typer.Option(help="Seeds of the runs to compare; default: the first of --seeds.")
    ] = None,
    common: Annotated[bool, typer.Option("--common", help="Choose one setting for all tasks together.")] = False,
    choose_only: Annotated[bool, typer.Option("--choose-only", help="Stop after the choice; test nothing.")] = False,
) -> None:
    """Choose settings on validation images, never on test; then train on all training images and test once per seed."""
    from shipbench.methods import parse_methods
    from shipbench.planning.grid import parse_seeds, parse_shots
    from shipbench.planning.tuning import make_searches

    template = replace(options.template(), protocol="tuning")

    def make(tasks: Sequence[Task]) -> tuple[list[Search], list[int], list[int]]:
        seeds = parse_seeds(options.seeds)
        trying = parse_seeds(tuning_seeds, "--tuning-seeds") if tuning_seeds is not None else seeds[:1]
        methods, values = parse_methods(method), options.values()
        searches = [
            search
            for shots in parse_shots(options.shots)
            for search in make_searches(
                methods, tasks, grid, trying, replace(template, shots=shots), values, common=common
            )
        ]
        return searches, trying, seeds

    searches, trying, seeds = checked(make, template, options, partial(parse_methods, method))
    options.executor().check()
    plan = plan_runs([spec for search in searches for spec in search.specs], options, say)
    _say_plan(plan, searches, [] if choose_only else seeds, tables=not options.as_json)
    if options.dry_run:
        if options.as_json:
            _print_document(options, plan, [], None)
        next_steps.after_run(options.results, dry_run=True)
        return
    decisions = _decide(searches, plan, options, trying)
    final = None if choose_only else _retrain(decisions, options, trying, seeds)
    if options.as_json:
        _print_document(options, plan, decisions, final)
    incomplete = say_failed(plan, options, "tuning runs")
    if final is not None:
        incomplete |= say_failed(final, options)
    if incomplete or any(decision.choice.winner is None for decision in decisions):
        sys.exit(1)
    next_steps.after_run(options.results)


def _say_plan(plan: Plan, searches: Sequence[Search], seeds: Sequence[int], *, tables: bool) -> None:
    """Print every tuning run with its state, and announce the runs that follow the choice."""
    from shipbench.cli.tables import print_plan
    from shipbench.tasks.catalogue import split_titles

    if tables:
        print_plan(plan)
    tasks = [task for search in searches for task in search.opened_tasks]
    fit, val = split_titles(tasks, "train800"), split_titles(tasks, "val200")
    say(f"tuning on {fit}, scored on {val}, test unopened; {plan.summary()}")
    runs = sum(len(search.tasks) for search in searches) * len(seeds)
    if seeds:
        say(f"then the chosen settings on all training images, tested once: {counted(runs, 'run')}")


def _decide(searches: Sequence[Search], plan: Plan, options: GridOptions, seeds: Sequence[int]) -> list[Decision]:
    """Execute the tuning runs; record and print the choice of every search."""
    from shipbench.cli.tables import print_choice
    from shipbench.planning.tuning import decide, describe
    from shipbench.results.store import Store
    from shipbench.results.tunings import write_tuning

    execute_chosen(plan, options)
    decisions = [decide(search, plan.ids, Store(options.results)) for search in searches]
    for decision in decisions:
        path = write_tuning(options.results, describe(decision, seeds))
        if not options.as_json:
            print_choice(decision)
        say(f"recorded in {path}")
    return decisions


def _retrain(
    decisions: Sequence[Decision], options: GridOptions, trying: Sequence[int], seeds: Sequence[int]
) -> Plan | None:
    """Record the winners' runs on all training images in their tunings, then execute them and print their results.

    Returns their plan, None without a winner.
    """
    from shipbench.cli.tables import print_results
    from shipbench.planning.grid import seed_by_seed
    from shipbench.planning.tuning import describe
    from shipbench.results.tunings import write_tuning

    final = [decision.final_specs(seeds) for decision in decisions]
    specs = seed_by_seed(spec for winner_specs in final for spec in winner_specs)
    if not specs:
        return None
    ids = plan_runs(specs, options).ids
    for decision, winner_specs in zip(decisions, final, strict=True):
        write_tuning(options.results, describe(decision, trying, [ids[spec] for spec in winner_specs]))
    plan = plan_to_execute(specs, options)
    execute_chosen(plan, options)
    if not options.as_json:
        print_results(plan, options.results)
    return plan


def _print_document(options: GridOptions, tuning: Plan, decisions: Sequence[Decision], final: Plan | None) -> None:
    """Print the tuning runs, the choices as the results folder holds them, and the runs that follow."""
    from shipbench.planning.tuning import tuning_id
    from shipbench.results.tunings import load_tunings

    stored = {document["tuning_id"]: document for document in load_tunings(options.results)}
    print_document(
        "tune/1",
        results=options.results,
        dry_run=options.dry_run,
        tuning_runs=run_rows(tuning, options.results),
        choices=[stored[tuning_id(decision)] for decision in decisions],
        runs=[] if final is None else run_rows(final, options.results),
    )
