"""The grid of a study on standard output: a table of its parts with their cost, or JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from shipbench.cli.documents import print_document
from shipbench.cli.layout import duration, make_table
from shipbench.cli.options import GridOptions
from shipbench.cli.tables import ends_note, excluded_note
from shipbench.counts import counted
from shipbench.planning.plan import PlannedRun, State
from shipbench.planning.study.cost import Cost, Row, estimate, mean_of_points, measured_rates, spent_seconds, total
from shipbench.planning.study.file import Study
from shipbench.planning.study.flops import plain_vit_flops
from shipbench.planning.study.follow_ups import FollowUpSection
from shipbench.planning.study.grid import Section, StudyGrid
from shipbench.planning.tuning import Decision
from shipbench.runtime.console import out_console, say
from shipbench.spec import RunSpec

CostOf = Callable[..., Cost]


def print_grid(
    study: Study, grid: StudyGrid, rows: Sequence[Row], options: GridOptions, differences: Sequence[str]
) -> None:
    """Print a row per section and follow-up of a study, then totals, the time left, and differences to the lock."""
    cost_of = _cost_of(rows)
    table = make_table("part", "methods", "tasks", "seeds", "runs", "shared", "done", "failed", "to do", "left")
    for section in grid.sections:
        table.add_row(*_cells(section, grid, cost_of))
    for follow_up in grid.follow_ups:
        table.add_row(*_follow_up_cells(follow_up, cost_of))
    out_console().print(table)
    if grid.unread:
        say(f"records are not looked up, and sizes are the catalogue's: {grid.unread}")
    say(_summary(grid, rows, options, cost_of))
    for follow_up in grid.follow_ups:
        if follow_up.waiting:
            part = follow_up.requested.part
            say(f"{part.name}: {part.noun} wait for their runs ({follow_up.waiting} to do)")
        if follow_up.refusal:
            say(follow_up.refusal)
    for sentence in differences:
        say(f"differs from the lock: {sentence}")


def _cells(section: Section, grid: StudyGrid, cost_of: CostOf) -> tuple[str, ...]:
    specs = [run.spec for run in section.runs] or [spec for points in section.waiting for spec in points[0]]
    due = _due(section, grid)
    return (
        section.name,
        _names([spec.method for spec in specs]),
        _names([spec.resolved.task.name for spec in specs]),
        _numbers({spec.seed for spec in specs}),
        str(len(section.runs) + section.waiting_runs),
        str(len(section.repeated) or ""),
        str(_count(section.runs, State.DONE)),
        str(_count(section.runs, State.FAILED)),
        f"{len(due)}{f' + {section.waiting_runs} waiting' if section.waiting_runs else ''}",
        cost_text(_left(section, grid, cost_of)),
    )


def _follow_up_cells(section: FollowUpSection, cost_of: CostOf) -> tuple[str, ...]:
    specs = [each.run.spec for each in section.outputs] + list(section.later)
    part = section.requested.part
    return (
        f"{part.name}: {part.noun}",
        _names([spec.method for spec in specs]),
        _names([spec.resolved.task.name for spec in specs]),
        _numbers({spec.seed for spec in specs}),
        str(section.count),
        "",
        str(section.done),
        str(sum(each.count for each in section.refused)),
        f"{section.left}{f' + {section.waiting} waiting' if section.waiting else ''}",
        cost_text(_follow_up_left(section, cost_of)),
    )


def _follow_up_left(section: FollowUpSection, cost_of: CostOf) -> Cost:
    """Return the cost of all outputs that are still to be made, those of runs to come among them."""
    left = [(each.run.spec, each.left + each.waiting) for each in section.outputs]
    left += [(spec, section.requested.count) for spec in section.later]
    return total(cost_of(spec, count * section.requested.images(spec)) for spec, count in left if count)


def _due(section: Section, grid: StudyGrid) -> list[PlannedRun]:
    """Return the runs of a section to execute, without those of an earlier section."""
    return [run for run in section.runs if run.run_id in grid.chosen_ids and run.run_id not in section.repeated]


def _left(section: Section, grid: StudyGrid, cost_of: CostOf) -> Cost:
    waiting = [mean_of_points(points, cost_of) for points in section.waiting]
    return total([*(cost_of(run.spec) for run in _due(section, grid)), *waiting])


def _count(runs: Sequence[PlannedRun], state: State) -> int:
    return sum(run.state is state for run in runs)


def _names(names: Sequence[str]) -> str:
    """Return up to three different names, or their number."""
    different = list(dict.fromkeys(names))
    return ", ".join(different) if len(different) <= 3 else str(len(different))


def _numbers(seeds: set[int]) -> str:
    """Return seeds as a list with a range where they follow each other."""
    ordered = sorted(seeds)
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]}-{ordered[-1]}"
    return ",".join(map(str, ordered))


def _cost_of(rows: Sequence[Row]) -> CostOf:
    rates = measured_rates(rows)

    def forward_flops(spec: RunSpec) -> float:
        flops = plain_vit_flops(spec)
        if flops is not None:
            return flops
        # It builds the backbone with torch.
        from shipbench.engine import cost

        return cost.forward_flops(spec)

    return cache(lambda spec, images=None: estimate(spec, rates, forward_flops, images))


def _summary(grid: StudyGrid, rows: Sequence[Row], options: GridOptions, cost_of: CostOf) -> str:
    runs, left = grid.runs, _all_left(grid, cost_of)
    waiting = f", and {grid.waiting_runs} more once settings are chosen" if grid.waiting_runs else ""
    done, failed = _count(runs, State.DONE), _count(runs, State.FAILED)
    counts = f"{counted(len(runs), 'run')}: {len(grid.to_do)} to do, {done} done, {failed} failed before{waiting}"
    spent = spent_seconds(runs, rows)
    so_far = f"; {duration(spent)} measured so far" if spent else ""
    return f"{counts}{so_far}; {_left_text(left, options)}" if left.runs else f"{counts}{so_far}"


def _all_left(grid: StudyGrid, cost_of: CostOf) -> Cost:
    runs = (_left(section, grid, cost_of) for section in grid.sections)
    return total([*runs, *(_follow_up_left(section, cost_of) for section in grid.follow_ups)])


def _left_text(left: Cost, options: GridOptions) -> str:
    if left.flops:
        return f"{cost_text(left)} left; their time is unknown until a method that trains on images has a record here"
    jobs = options.jobs or 1
    how = f"{jobs} runs at a time" if jobs > 1 else "counted one run after the other"
    rest = left.runs - left.measured
    basis = (
        f"{rest} of {counted(left.runs, 'run')} by FLOPs, others by records" if rest else "at the rates of the records"
    )
    return f"about {duration(left.seconds / jobs)} left, {how} ({basis})"


def cost_text(cost: Cost) -> str:
    """Return a cost as time, as FLOPs where the time is unknown, and empty if there is nothing to do."""
    if not cost.runs:
        return ""
    time, flops = duration(cost.seconds), f"{cost.flops:.2g} FLOPs"
    if not cost.flops:
        return time
    return f"{time} and {flops}" if cost.seconds else flops


def describe_decision(decision: Decision) -> str:
    """Return one line with what a search chose and its mean validation accuracy in percent."""
    search, choice = decision.search, decision.choice
    subject = f"{search.method} on {', '.join(search.tasks)}"
    if choice.winner is None:
        return f"{subject}: nothing chosen, because every setting has a failed run"
    trial = decision.trials[choice.winner]
    settings = ", ".join(f"{key}={value}" for key, value in trial.settings.items())
    notes = excluded_note(decision.trials) + ends_note(decision.trials, choice)
    return f"{subject}: chose {settings} ({100 * trial.mean:.1f} % on validation){notes}"


def print_json(
    study: Study, grid: StudyGrid, rows: Sequence[Row], options: GridOptions, differences: Sequence[str]
) -> None:
    """Print a study as one JSON object: its parts, its runs, the time left in seconds, differences to the lock."""
    cost_of = _cost_of(rows)
    left = _all_left(grid, cost_of)
    print_document(
        "study/1",
        study=study.file,
        results=options.results,
        unread=grid.unread,
        sections=[_section_document(section, grid, cost_of) for section in grid.sections],
        follow_ups=[_follow_up_document(section, cost_of) for section in grid.follow_ups],
        runs=[_run_document(run, grid, cost_of) for run in grid.runs],
        waiting=grid.waiting_runs,
        seconds_spent=spent_seconds(grid.runs, rows),
        seconds_left=left.seconds,
        flops_left=left.flops,
        differences=differences,
    )


def _section_document(section: Section, grid: StudyGrid, cost_of: CostOf) -> dict[str, Any]:
    left = _left(section, grid, cost_of)
    return {
        "name": section.name,
        "runs": [run.run_id for run in section.runs],
        "shared": sorted(section.repeated),
        "waiting": section.waiting_runs,
        "seconds_left": left.seconds,
        "flops_left": left.flops,
    }


def _follow_up_document(section: FollowUpSection, cost_of: CostOf) -> dict[str, Any]:
    left = _follow_up_left(section, cost_of)
    return {
        "name": section.requested.part.name,
        "kind": section.requested.part.kind,
        "runs": [each.run.run_id for each in section.outputs],
        "outputs": section.count,
        "done": section.done,
        "to_do": section.left,
        "waiting": section.waiting,
        "refused": {each.run.run_id: each.reason for each in section.refused},
        "seconds_left": left.seconds,
        "flops_left": left.flops,
    }


def _run_document(run: PlannedRun, grid: StudyGrid, cost_of: CostOf) -> dict[str, Any]:
    cost = cost_of(run.spec)
    return {
        "run_id": run.run_id,
        "method": run.spec.method,
        "task": run.spec.resolved.task.name,
        "seed": run.spec.seed,
        "shots": run.spec.shots,
        "protocol": run.spec.protocol,
        "settings": dict(run.spec.overrides),
        "state": run.state.value,
        "to_do": run.run_id in grid.chosen_ids,
        "estimated_seconds": None if cost.flops else cost.seconds,
    }
