"""The rank table: average ranks of the main arms, with Friedman's test in its caption."""

from __future__ import annotations

from shipbench.report.analysis.cautions import cautions
from shipbench.report.analysis.ranks import FEWEST_ARMS, FEWEST_TASKS
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Cell, Column, Row, Table
from shipbench.report.tables.common import name_cell
from shipbench.report.wording.text import joined
from shipbench.statistics import task_ranks


def unranked_note(view: SuiteView) -> str:
    """Explain why the arms have no ranking; empty if they have one or are too few to need one."""
    if view.ranking or len(view.compared) < FEWEST_ARMS:
        return ""
    names = joined([arm.label for arm in view.compared])
    tasks, arms = view.complete_scores.means.shape
    if arms >= FEWEST_ARMS and tasks >= FEWEST_TASKS:
        same = "on the same images with the same draw, resize, augment and metric"
        return f"No ranking of {names}: no {FEWEST_TASKS} tasks are shared by all that have them {same}."
    return f"No ranking of {names}: no {FEWEST_TASKS} tasks are shared by {FEWEST_ARMS} of them."


def ranks_table(view: SuiteView) -> Table | None:
    """Return the table of average ranks, best first; None without a ranking."""
    ranking = view.ranking
    if ranking is None:
        return None
    wins = (task_ranks(ranking.scores) == 1).sum(axis=0)
    rows = [
        Row(
            (
                name_cell(arm),
                Cell(f"{ranking.ranks[arm.key]:.2f}", value=float(ranking.ranks[arm.key])),
                Cell(str(wins[arm.key]), value=int(wins[arm.key])),
            )
        )
        for arm in ranking.arms
    ]
    return Table(
        name=f"ranks-{view.slug}",
        title=f"{view.name}: average ranks",
        caption=view.caption("Methods by average rank over tasks, best first.", ranking.sentence),
        columns=(
            Column("method", "Method", align="left"),
            Column("rank", "average rank"),
            Column("wins", "wins"),
        ),
        rows=tuple(rows),
        warnings=cautions(view.study.runs_of(ranking.arms)),
    )
