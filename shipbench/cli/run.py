"""``shipbench run``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from shipbench.cli import completion, next_steps
from shipbench.cli.options import GridOptions, grid_command

if TYPE_CHECKING:
    from shipbench.planning.plan import Plan
    from shipbench.record import RunRecord
    from shipbench.spec import RunSpec


@grid_command
def run(
    options: GridOptions,
    method: Annotated[str, typer.Option(help="Methods, comma-separated, or all.", autocompletion=completion.methods)],
) -> None:
    """Train and test methods on tasks; a run that is done already is skipped."""
    from shipbench.methods import parse_methods
    from shipbench.planning.grid import make_grid, parse_seeds
    from shipbench.tasks import parse_tasks

    tasks, seeds = parse_tasks(options.tasks), parse_seeds(options.seeds)
    carry_out(make_grid(parse_methods(method), tasks, seeds, options.template(), options.values()), options)
    next_steps.after_run(options.results, dry_run=options.dry_run)


def carry_out(specs: list[RunSpec], options: GridOptions) -> None:
    """Plan, say what will happen, run, and show the results; exits with 1 if a run failed."""
    from shipbench.engine.warmup import make_ready
    from shipbench.planning.plan import require_runs
    from shipbench.results.store import Store
    from shipbench.runtime.console import say

    check_cluster(options)
    if not options.dry_run:
        Store(options.results).check_writable()
    plan = plan_runs(specs, options)
    require_runs(plan)
    say(plan.summary())
    if options.dry_run:
        from shipbench.cli.tables import print_plan

        print_plan(plan)
        return
    make_ready(plan)
    _run_and_show(plan, options)


def plan_runs(specs: list[RunSpec], options: GridOptions) -> Plan:
    """Look up what is done already; raises ``InputError`` for what cannot be carried out."""
    from shipbench.planning.plan import make_plan
    from shipbench.results.store import Store

    elsewhere = options.cluster() is not None
    store = Store(options.results)
    return make_plan(specs, store, force=options.force, retry_failed=options.retry_failed, elsewhere=elsewhere)


def check_cluster(options: GridOptions) -> None:
    """Raise ``InputError`` if the runs are meant for a cluster that does not answer, or for stacks it cannot do."""
    options.stacking()
    scheduler = options.cluster()
    if scheduler is not None:
        from shipbench.engine.executors.dask import require_cluster

        require_cluster(scheduler)


def _run_and_show(plan: Plan, options: GridOptions) -> None:
    from shipbench.cli.tables import print_results
    from shipbench.runtime.console import say

    records = run_chosen(plan, options)
    print_results(plan, options.results)
    failed, before = sum(not record.done for record in records), len(plan.left_as_failed)
    if failed:
        say(f"{failed} of {len(records)} runs failed; see 'shipbench list runs --results {options.results}'")
    if before:
        say(f"{before} of {len(plan.runs)} runs failed before and were left as they are; --retry-failed repeats them")
    if failed or before:
        sys.exit(1)


def run_chosen(plan: Plan, options: GridOptions) -> list[RunRecord]:
    """Carry out the chosen runs of a plan with a progress display; exits with 130 or 143 when interrupted."""
    if not plan.chosen:
        # Without what imports torch, which takes longer than all the rest.
        from shipbench.results import claims
        from shipbench.results.store import Store

        claims.tidy(Store(options.results))
        return []
    from shipbench.cli.progress import make_reporter
    from shipbench.engine.supervisor import carry_out_plan, default_jobs
    from shipbench.hardware.device import resolve_device
    from shipbench.runtime.console import say
    from shipbench.runtime.interrupts import exit_code, sigterm_interrupts

    cluster = options.cluster()
    # A cluster's workers do one run at a time, on devices that need not be here.
    stacking = None if cluster else options.stacking().on(resolve_device(options.device).type)
    try:
        with sigterm_interrupts():
            # Not those that are left: threads change rounding, and a grid goes on as it was begun.
            jobs = 1 if cluster else min(options.jobs or default_jobs(plan), len(plan.runs))
            with make_reporter(len(plan.chosen)) as reporter:
                return carry_out_plan(plan, options.results, jobs, reporter, cluster, stacking)
    except KeyboardInterrupt as stop:
        say(f"stopped; {_what_is_kept(options)}")
        sys.exit(exit_code(stop))


def _what_is_kept(options: GridOptions) -> str:
    if options.force:
        kept = f"finished runs are kept in {options.results}"
        return f"{kept}; without --force the same command goes on with those that have no record"
    kept = f"finished runs and the checkpoints of unfinished ones are kept in {options.results}"
    return f"{kept}, and the same command goes on from there"
