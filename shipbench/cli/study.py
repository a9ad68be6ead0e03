"""``shipbench study``: a whole paper from one file."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipbench.cli import next_steps
from shipbench.cli.options import (
    Cluster,
    Data,
    Device,
    Engine,
    GridOptions,
    Jobs,
    KeepWeights,
    RetryFailed,
    Scheduler,
    Stack,
    options_command,
)
from shipbench.cli.report import ReportChoices, check_choices, make_report
from shipbench.cli.run import execute_chosen, plan_runs, recorded_otherwise
from shipbench.counts import counted
from shipbench.errors import InputError, ShipbenchError, check_all, did_you_mean, value_of
from shipbench.record import IMPORTED
from shipbench.runtime.console import say, say_once
from shipbench.runtime.interrupts import stopping, time_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shipbench.planning.plan import Plan
    from shipbench.planning.study.cost import Row
    from shipbench.planning.study.file import ReportPart, Study
    from shipbench.planning.study.grid import PartDecision, StudyGrid
    from shipbench.planning.study.lock import Lock

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def _duration(text: str) -> float:
    """Parse a duration such as ``30m`` or ``1h30m`` as seconds."""
    match = _DURATION.fullmatch(text.strip())
    seconds = match and sum(int(n or 0) * unit for n, unit in zip(match.groups(), (3600, 60, 1), strict=True))
    if not seconds:
        raise InputError(f"--for {text!r} is not a duration, as in 30m, 2h or 1h30m")
    return float(seconds)


@dataclass(frozen=True)
class StudyOptions:
    """The options of ``shipbench study``."""

    results: Annotated[
        Path | None,
        typer.Option(help="Folder of the records; default: the one in the file, $SHIPBENCH_RESULTS, or results."),
    ] = None
    data: Data = None
    only: Annotated[str | None, typer.Option(metavar="PART,...", help="Plan and execute these parts only.")] = None
    limit: Annotated[
        float | None,
        typer.Option("--for", parser=_duration, metavar="TIME", help="Stop after this time, as in 30m or 1h30m."),
    ] = None
    report_only: Annotated[
        bool, typer.Option("--report", help="Only write the reports, from the records that exist.")
    ] = False
    lock: Annotated[
        Path | None,
        typer.Option(help="Lock file to compare with; default: FILE.lock beside the study file, if there is one."),
    ] = None
    locked: Annotated[bool, typer.Option("--locked", help="Refuse to run if anything differs from a lock.")] = False
    relock: Annotated[bool, typer.Option("--relock", help="Replace the lock of the results folder.")] = False
    device: Device = "auto"
    jobs: Jobs = None
    stack: Stack = "auto"
    engine: Engine = "local"
    scheduler: Scheduler = None
    cluster: Cluster = None
    keep_weights: KeepWeights = "trained"
    retry_failed: RetryFailed = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the grid with its cost and stop.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the grid as JSON on standard output.")] = False

    def for_grid(self, study: Study) -> GridOptions:
        """Return the options with which the runs of a study are executed; its parts hold all others."""
        shared = {field.name for field in fields(GridOptions)}
        values = {name: value for name, value in vars(self).items() if name in shared}
        results = self.results or study.results or Path(os.environ.get("SHIPBENCH_RESULTS") or "results")
        return GridOptions(**{**values, "tasks": "", "results": results, "as_json": False})


@options_command(StudyOptions)
def study(
    options: StudyOptions, file: Annotated[Path, typer.Argument(metavar="FILE", help="Study file (TOML).")]
) -> None:
    """Execute the runs, ablations and tunings in FILE as one grid, then write its reports; repeat it to resume."""
    from shipbench.planning.study.file import choose_parts, read_study

    if options.report_only and options.as_json:
        raise InputError("--json prints the grid, which --report does not plan; leave one of them out")
    if options.report_only and options.dry_run:
        raise InputError("--report writes the reports, which --dry-run does not; leave one of them out")
    if options.report_only and (options.lock is not None or options.locked or options.relock):
        raise InputError(
            "--report plans no grid that a lock could be compared with; leave out --lock, --locked and --relock"
        )
    if options.locked and options.relock:
        raise InputError("--relock replaces the lock that --locked compares with; leave one of them out")
    if options.lock is not None and not options.lock.is_file():
        raise InputError(f"lock file {options.lock} does not exist or is not a file")
    whole = read_study(file)
    chosen = choose_parts(whole, options.only)
    grid_options = options.for_grid(chosen)
    refused: list[str] = []
    if not options.dry_run:
        # A dry run does without: it needs pandas, which takes as long to import as a grid takes to plan.
        value_of(partial(_check_reports, whole, grid_options.results), None, refused)
    if options.report_only:
        if refused:
            raise InputError(*refused)
        if not _report(chosen, grid_options.results, complete=True):
            next_steps.after_run(grid_options.results)
        return
    with time_limit(options.limit), stopping(grid_options.kept):
        failed = _study(chosen, grid_options, options, refused)
    if failed:
        sys.exit(1)


def _study(study: Study, options: GridOptions, study_options: StudyOptions, refused: Sequence[str]) -> int:
    """Plan a study, and execute it unless that is a dry run; return the number of failures.

    Raises one ``InputError`` for ``refused``, the problems found before, and all others that need no network.
    """
    from shipbench.cli.study_tables import print_grid, print_json
    from shipbench.planning.plan import State

    lines: list[str] = []
    grid = _plan(study, options, lines.append, refused)
    as_json = study_options.as_json
    rows, show = _rows(options.results), print_json if as_json else print_grid
    sentences = _compare(study, grid, options, study_options)
    # After everything that can be refused.
    for line in (*grid.request.notes, *lines, *recorded_otherwise(grid.runs, options.results)):
        say_once(line)
    if options.dry_run:
        show(study, grid, rows, options, sentences)
        next_steps.after_run(options.results, dry_run=True)
        return 0
    if not as_json:
        show(study, grid, rows, options, sentences)
    final, undecided = _execute(grid, options)
    failed_outputs = _follow_up(final, options)
    if as_json:
        show(study, _planned_again(grid, options), _rows(options.results), options, sentences)
    reported = _report(study, options.results)
    failed = sum(run.state is State.FAILED for run in final.runs)
    if failed:
        say(f"{failed} of {counted(len(final.runs), 'run')} failed; --retry-failed repeats them")
    failures = failed + undecided + failed_outputs
    if not (reported or failures):
        next_steps.after_run(options.results)
    return failures


def _plan(study: Study, options: GridOptions, say: Callable[[str], None], refused: Sequence[str]) -> StudyGrid:
    """Return the grid of a study; a dry run without data or weights has one without records.

    ``say`` receives lines about the weights in checkpoint files; ``refused`` as for ``_study``.
    """
    from shipbench.planning.study.grid import plan_study, plan_without_records
    from shipbench.planning.study.parts import request
    from shipbench.results.store import Store

    dry, problems = options.dry_run, list(refused)
    remote = value_of(lambda: options.executor().remote, False, problems)
    template, results = options.template(), None if dry else options.results
    requested = request(study, template, results, elsewhere=remote, without_data=dry, refused=problems)
    options.executor().check()
    if requested.unopened:
        return plan_without_records(requested, requested.unopened)
    try:
        return plan_study(requested, lambda specs: plan_runs(specs, options, say), Store(options.results))
    except ShipbenchError as error:
        if not dry:
            raise
        return plan_without_records(requested, str(error))


def _rows(results: Path) -> list[Row]:
    """Return the records of a folder, none if it does not exist."""
    from shipbench.results.loading import load_rows

    return list(load_rows(results)) if (results / "runs").is_dir() else []


def _compare(study: Study, grid: StudyGrid, options: GridOptions, study_options: StudyOptions) -> list[str]:
    """Return the differences to the locks of a study, after writing or extending that of the results folder."""
    from shipbench.planning.study.lock import differences, extended, lock_name, make_lock, read_lock, write_lock

    if grid.unread:
        if study_options.locked:
            raise InputError(f"--locked: nothing can be compared with a lock: {grid.unread}")
        return []
    ours, place = make_lock(study, grid), options.results / lock_name(study)
    beside = study_options.lock or study.file.with_name(lock_name(study))
    others = {path: read_lock(path) for path in dict.fromkeys((beside, place)) if path.is_file()}
    if study_options.relock:
        others.pop(place, None)
    if study_options.locked and not others:
        raise InputError(f"--locked: there is no lock to compare with: neither {beside} nor {place} exists")
    sentences = [sentence for path, other in others.items() for sentence in differences(ours, other, str(path))]
    if sentences and study_options.locked:
        raise InputError("\n- ".join(["--locked: this machine differs from the lock:", *sentences]))
    if not options.dry_run:
        kept: Lock = extended(others[place], ours) if place in others else ours
        if kept != others.get(place):
            write_lock(place, kept)
    return sentences


def _execute(grid: StudyGrid, options: GridOptions) -> tuple[StudyGrid, int]:
    """Execute the runs of a grid, choose the settings of its tunings, execute the winners.

    Returns the grid then, and the number of searches without a choice.
    """
    from shipbench.planning.study.grid import decide_parts, winners
    from shipbench.results.store import Store

    store = Store(options.results)
    execute_chosen(grid.first, options)
    # Every trial has been executed or has failed, so every search can be decided.
    decisions = decide_parts(grid.request.parts, replace(grid.first, chosen=()), store)
    final = plan_runs(winners(decisions), options)
    _record(decisions, final, options.results)
    execute_chosen(final, options)
    return _planned_again(grid, options), sum(each.made.choice.winner is None for each in decisions)


def _planned_again(grid: StudyGrid, options: GridOptions) -> StudyGrid:
    """Return the grid of the same request with the records that exist now."""
    from shipbench.planning.study.grid import plan_study
    from shipbench.results.store import Store

    again = replace(options, retry_failed=False)
    return plan_study(grid.request, lambda specs: plan_runs(specs, again), Store(options.results))


def _follow_up(grid: StudyGrid, options: GridOptions) -> int:
    """Evaluate finished runs and store features as the study asks; return for how many runs that failed."""
    if not any(section.left or section.refused for section in grid.follow_ups):
        return 0
    from shipbench.cli.follow_ups import execute_follow_ups

    return execute_follow_ups(grid.follow_ups, options.results)


def _record(decisions: Sequence[PartDecision], plan: Plan, results: Path) -> None:
    """Write the tuning of every decision, and print what it chose."""
    from shipbench.cli.study_tables import describe_decision
    from shipbench.planning.tuning import describe
    from shipbench.results.tunings import write_tuning

    for each in decisions:
        final = [plan.ids[spec] for spec in each.final_specs]
        write_tuning(results, describe(each.made, each.part.tuning_seeds, final))
        say(describe_decision(each.made))


def _check_reports(study: Study, results: Path) -> None:
    """Raise one ``InputError`` for all reports of a study that could not be written, before hours of training."""
    from shipbench.methods import parse_methods
    from shipbench.planning.study.file import located

    methods = [method.name for part in study.parts for method in parse_methods(part.method_text)]
    with located(f"[[report]] of {study.file}"):
        check_all(
            check
            for part in study.reports
            for check in (
                partial(check_choices, _choices(part, results)),
                partial(_check_baseline, part, methods, results),
            )
        )


def _check_baseline(part: ReportPart, methods: Sequence[str], results: Path) -> None:
    """Raise ``InputError`` for a baseline that no part of the study trains and no record has."""
    name = part.baseline
    if name is None or name in methods or name in _methods_of(results, part):
        return
    raise InputError(f"baseline: no part trains {name!r}{did_you_mean(name, methods)}, and no record is of it")


def _methods_of(results: Path, part: ReportPart) -> set[str]:
    """Return the methods whose records a report compares with others."""
    return {str(row["method"]) for row in _rows(results) if row["kind"] != IMPORTED or part.imported == "all"}


def _report(study: Study, results: Path, *, complete: bool = False) -> bool:
    """Write the reports of a study; unless it is ``complete``, leave out those whose baseline has no run yet.

    Returns whether a report was written.
    """
    from shipbench.planning.study.file import located

    written = False
    for part in study.reports:
        if not (complete or part.baseline is None or part.baseline in _methods_of(results, part)):
            say(f"{part.output} is not written: its baseline {part.baseline} has no run yet")
            continue
        with located(f"[[report]] of {study.file}"):
            make_report(_choices(part, results))
        written = True
    return written


def _choices(part: ReportPart, results: Path) -> ReportChoices:
    return ReportChoices(
        results=str(results),
        output=Path(part.output),
        select=part.select,
        formats=part.format,
        baseline=part.baseline,
        published=part.published,
        imported=part.imported,
        style=part.style,
        title=part.title,
    )
