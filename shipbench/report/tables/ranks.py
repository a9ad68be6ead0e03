"""Average ranks of the main arms, with Friedman's test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import cautions
from shipbench.report.analysis.differences import comparable
from shipbench.report.analysis.study import Study
from shipbench.report.document import Cell, Column, Row, Table
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import counted, joined, slug, suite_name
from shipbench.statistics import FriedmanTest, average_ranks, friedman_test, nemenyi_distance, task_ranks

_FEWEST_ARMS, _FEWEST_TASKS = 3, 2


@dataclass(frozen=True, eq=False)
class Ranking:
    """Average ranks by label (best first) over ``tasks`` tasks, the tests, and who is left out."""

    scores: pd.DataFrame
    ranks: pd.Series[float]
    test: FriedmanTest
    distance: float
    tasks: int
    arms: tuple[Arm, ...]
    left_out: str


def ranking(study: Study, suite: str) -> Ranking | None:
    """Rank the suite's main arms; None with fewer than three arms or two shared tasks."""
    arms = study.arms_of(suite, main=True)
    shared = comparable(study, arms)
    table = shared.means
    if table.shape[1] < _FEWEST_ARMS or table.shape[0] < _FEWEST_TASKS:
        return None
    ranks = average_ranks(table).sort_values(kind="stable")
    return Ranking(
        scores=table,
        ranks=ranks,
        test=friedman_test(table),
        distance=nemenyi_distance(table.shape[1], table.shape[0]),
        tasks=table.shape[0],
        arms=tuple(arm for key in ranks.index for arm in arms if arm.key == key),
        left_out=shared.sentence,
    )


def unranked_note(arms: Sequence[Arm]) -> str:
    """Say that ``arms`` have no ranking, and why."""
    names = joined([arm.label for arm in arms])
    return f"No ranking of {names}: no {_FEWEST_TASKS} tasks are shared by {_FEWEST_ARMS} of them."


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
