"""The oracle gap: what choosing the epoch on test images would have claimed, per method."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import Study
from shipbench.report.document import Cell, Column, Row, Table, text_cell
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import slug, suite_name
from shipbench.report.wording.numbers import percent, signed

_CAPTION = (
    "{suite}: mean test accuracy in percent after the last epoch and at each run's best test epoch, over the runs that "
    "were tested during training, whatever rule the other tables follow. The gap is what choosing the epoch on test "
    "images would add; the largest one is that of a single task."
)


@dataclass(frozen=True)
class OracleGap:
    """One arm's mean accuracies in percent after the last and at the best test epoch, and its largest gap."""

    arm: Arm
    final: float
    best: float
    largest: float
    tasks: int


def oracle_gaps(study: Study, suite: str) -> list[OracleGap]:
    """Return the gap of every main arm with a run that was tested at more than its last epoch."""
    runs = _tested_along_the_way(study.runs)
    return [_gap(arm, own) for arm in study.arms_of(suite, main=True) if len(own := runs[runs["arm"] == arm.key])]


def _gap(arm: Arm, runs: pd.DataFrame) -> OracleGap:
    means = 100 * runs.groupby("task")[["final_test_acc", "best_test_acc"]].mean()
    gaps = means["best_test_acc"] - means["final_test_acc"]
    final, best = float(means["final_test_acc"].mean()), float(means["best_test_acc"].mean())
    return OracleGap(arm, final, best, float(gaps.max()), len(means))


def _tested_along_the_way(runs: pd.DataFrame) -> pd.DataFrame:
    """Leave out runs that were tested once, at the end: their gap is not zero but unknown."""
    finished = runs[runs["status"] == "done"].dropna(subset=["final_test_acc", "best_test_acc"])
    if "cfg.eval_every" not in finished:
        return finished
    return finished[finished["cfg.eval_every"].fillna(1) > 0]


def oracle_table(study: Study, suite: str) -> Table | None:
    """Return the table of oracle gaps; None if no run was tested at more than its last epoch."""
    gaps = oracle_gaps(study, suite)
    if not gaps:
        return None
    return Table(
        name=f"oracle-gaps-{slug(suite)}",
        title=f"{suite_name(suite)}: the oracle gap in numbers",
        caption=caption(_CAPTION.format(suite=suite_name(suite)), study.selection, suite),
        columns=(
            Column("method", "Method", align="left"),
            Column("final", "last epoch"),
            Column("oracle", "best test epoch"),
            Column("gap", "oracle gap"),
            Column("largest_gap", "largest gap"),
            Column("tasks", "tasks"),
        ),
        rows=tuple(_row(gap) for gap in gaps),
    )


def _row(gap: OracleGap) -> Row:
    difference = gap.best - gap.final
    return Row(
        (
            text_cell(gap.arm.label),
            Cell(percent(gap.final), value=gap.final),
            Cell(percent(gap.best), value=gap.best),
            Cell(signed(difference), value=difference),
            Cell(signed(gap.largest), value=gap.largest),
            Cell(str(gap.tasks), value=gap.tasks),
        )
    )
