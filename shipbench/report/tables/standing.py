"""The short table at the top of a report: one mean per method, its difference to the baseline, and its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.comparisons import PairedComparison
from shipbench.report.analysis.headline import Standing, left_out
from shipbench.report.analysis.study import Score, Study, mean_over_tasks
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import MISSING, Cell, Column, Row, Table
from shipbench.report.tables.common import (
    MILLION,
    contradicted,
    evenly,
    fewer_seeds_note,
    label_cell,
    marked,
    millions_cell,
    p_cell,
    score_cell,
    tuned_note,
    untested_note,
)
from shipbench.report.wording.numbers import has_value, signed
from shipbench.report.wording.text import sentence_case


def standing_table(view: SuiteView, standing: Standing) -> Table:
    """Return the table of ``standing``, best first; differences are to each arm's baseline."""
    comparisons = {comparison.arm: comparison for comparison in view.comparisons}
    against = f"vs. {view.baselines.name}" if comparisons else ""
    tested = any(has_value(comparison.wilcoxon) for comparison in comparisons.values())
    rows = [
        Row(tuple(_cells(view, standing, arm, score, comparisons.get(arm), against=bool(against), tested=tested)))
        for arm, score in standing.scores
    ]
    rows, seeds = _seeds_once(rows, view.over_seeds("", [arm for arm, _ in standing.scores]))
    columns = (
        Column("method", "Method", align="left"),
        Column("accuracy", standing.name, extras=("deviation", "seeds")),
        *([Column("difference", against, extras=("low", "high"))] if against else []),
        *([Column("wilcoxon_holm_p", "p")] if tested else []),
        Column("trainable_params", "params (M)"),
    )
    beyond = _beyond(view, standing) if tested else ""
    untested = untested_note([len(comparison.differences) for comparison in comparisons.values()])
    remarks = "; ".join(filter(None, _remarks(view, standing, tested=tested)))
    return Table(
        name=f"overview-{view.slug}",
        title=f"{view.name}: overview",
        caption=view.caption(
            f"{sentence_case(standing.name)} in percent{seeds}.{f' {remarks}.' if remarks else ''}",
            " ".join([f"Trainable parameters with the head.{left_out(view, standing)}{beyond}", *untested]),
        ),
        columns=columns,
        rows=tuple(evenly(marked(rows, [1]), {len(columns) - 1: MILLION})),
        notes=(*fewer_seeds_note(rows), *view.comparison_notes, *tuned_note(arm for arm, _ in standing.scores)),
        warnings=view.cautions,
    )


def _remarks(view: SuiteView, standing: Standing, *, tested: bool) -> tuple[str, ...]:
    """Say what differences are over, if not over what the means are, which test p is of, and where it contradicts."""
    arms = {arm for arm, _ in standing.scores}
    comparisons = [comparison for comparison in view.comparisons if comparison.arm in arms]
    against = [c.arm for c in comparisons if c.contradicts(_printed(view, standing, c))]
    seeds = any(_other_seeds(view.study, comparison) for comparison in comparisons)
    by_mean, among, shared = "", "", f"shared with {view.baselines.name}"
    if standing.kind == "tasks":
        tasks = any(set(comparison.differences) != set(standing.tasks) for comparison in comparisons)
        over = "all tasks and seeds" if tasks and seeds else "all tasks" if tasks else "the seeds" if seeds else ""
        by_mean = f"Differences are over {over} {shared}" if over else ""
    elif seeds:
        among = f", over the seeds {shared},"
    test = f"p is that of Wilcoxon's test across tasks{among} with Holm's correction" if tested else ""
    return by_mean, test, contradicted(against)


def _beyond(view: SuiteView, standing: Standing) -> str:
    """Say, after a space, that Holm's correction counts rows that ``standing`` leaves to other settings."""
    here = {*(arm for arm, _ in standing.scores), *standing.unranked}
    elsewhere = [comparison for comparison in view.comparisons if comparison.arm not in here]
    return " Holm's correction is over the methods with other settings too." if elsewhere else ""


def _printed(view: SuiteView, standing: Standing, comparison: PairedComparison) -> float:
    """Return the difference that the table prints for an arm; NaN if it prints none."""
    if standing.kind == "tasks":
        return comparison.interval.mean
    if comparison.arm in view.changed:
        return float("nan")
    ours, theirs = (view.study.summary(arm).mean_of_groups for arm in (comparison.arm, comparison.baseline))
    return ours.mean - theirs.mean


def _other_seeds(study: Study, comparison: PairedComparison) -> bool:
    """Return whether a side of ``comparison`` has seeds on a shared task that the other lacks there."""
    ours, theirs = study.accuracies(comparison.arm), study.accuracies(comparison.baseline)
    return any(set(ours[task].dropna().index) != set(theirs[task].dropna().index) for task in comparison.differences)


def _seeds_once(rows: Sequence[Row], single: str) -> tuple[list[Row], str]:
    """Return the rows without their seeds if all have the same, and the words of the caption on seeds.

    ``single`` are those for rows with one seed each.
    """
    names = {row.cells[0].below for row in rows}
    deviate = any(row.cells[1].below for row in rows)
    if len(names) != 1:
        return list(rows), " with the standard deviation over seeds" if deviate else single
    (seeds,) = names
    bare = [replace(row, cells=(replace(row.cells[0], below=""), *row.cells[1:])) for row in rows]
    return bare, f" with the standard deviation over {seeds}" if deviate else f", {seeds}"


def _cells(
    view: SuiteView,
    standing: Standing,
    arm: Arm,
    score: Score,
    comparison: PairedComparison | None,
    *,
    against: bool,
    tested: bool,
) -> list[Cell]:
    cells = [label_cell(view.study, arm), score_cell(score, view.study.seeds_of(arm))]
    if against:
        cells.append(
            _difference(view, arm, comparison) if standing.kind == "tasks" else _lead(view, standing, arm, comparison)
        )
    if tested:
        cells.append(p_cell(comparison.wilcoxon_adjusted) if comparison else Cell())
    runs = view.study.runs_of([arm])
    of_tasks = runs[runs["task"].isin(standing.tasks)]
    return [*cells, millions_cell(mean_over_tasks(of_tasks, "trainable_params"))]


def _lead(view: SuiteView, standing: Standing, arm: Arm, comparison: PairedComparison | None) -> Cell:
    """Return the difference of two means of groups, which has no interval over tasks, of arms that are compared."""
    if arm in view.baselines.all:
        return Cell("baseline")
    difference = _printed(view, standing, comparison) if comparison else float("nan")
    return Cell(signed(difference), value=difference) if has_value(difference) else Cell(MISSING)


def _difference(view: SuiteView, arm: Arm, comparison: PairedComparison | None) -> Cell:
    """Return the difference over shared tasks and seeds, which an arm without any in common with the baseline lacks."""
    if comparison is None:
        return Cell("baseline" if arm in view.baselines.all else MISSING)
    interval = comparison.interval
    below = f"{signed(interval.low)} to {signed(interval.high)}" if has_value(interval.low) else ""
    return Cell(signed(interval.mean), below, interval.mean, (("low", interval.low), ("high", interval.high)))
