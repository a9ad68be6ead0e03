"""Average ranks of the main arms, with Friedman's test."""

from __future__ import annotations

from collections.abc import Sequence

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import cautions
from shipbench.report.analysis.ranks import FEWEST_ARMS, FEWEST_TASKS, Ranking
from shipbench.report.analysis.study import Study
from shipbench.report.document import Cell, Column, Row, Table
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import suite_name
from shipbench.report.wording.text import counted, joined, slug
from shipbench.statistics import task_ranks


def unranked_note(arms: Sequence[Arm]) -> str:
    """Say that ``arms`` have no ranking, and why."""
    names = joined([arm.label for arm in arms])
    return f"No ranking of {names}: no {FEWEST_TASKS} tasks are shared by {FEWEST_ARMS} of them."


def ranking_sentence(found: Ranking) -> str:
    """Describe the tests of a ranking in one caption sentence."""
    p_value = "p < 0.001" if found.test.p_value < 0.001 else f"p = {found.test.p_value:.3f}"
    return (
        f"Average ranks over {counted(found.tasks, 'task')} (1 is best; ties share their mean rank; a win is "
        f"a task led alone) of mean accuracies "
        f"over seeds; Friedman chi-squared {found.test.statistic:.2f}, {p_value}; Nemenyi critical difference "
        f"{found.distance:.2f} at the 5 % level.{found.left_out}"
    )


def ranks_table(study: Study, suite: str, found: Ranking) -> Table:
    """Return the table of average ranks, best first."""
    first = (task_ranks(found.scores) == 1).sum(axis=0)
    rows = [
        Row(
            (
                Cell(arm.label, value=arm.label),
                Cell(f"{found.ranks[arm.key]:.2f}", value=float(found.ranks[arm.key])),
                Cell(str(first[arm.key]), value=int(first[arm.key])),
            )
        )
        for arm in found.arms
    ]
    runs = study.runs_of(found.arms)
    return Table(
        name=f"ranks-{slug(suite)}",
        title=f"{suite_name(suite)}: average ranks",
        caption=caption(ranking_sentence(found), study.selection, suite),
        columns=(
            Column("method", "Method", align="left"),
            Column("rank", "average rank"),
            Column("wins", "wins"),
        ),
        rows=tuple(rows),
        warnings=cautions(runs),
    )
