"""From records to a paper's tables and figures: pure functions of data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shipbench.report.analysis.study import build_study
from shipbench.report.contents import ReportOptions, build_report
from shipbench.report.tables.main import Statistic, main_frame
from shipbench.report.write import FORMATS, parse_formats, write_report
from shipbench.selection import get_selection

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "ReportOptions", "build_report", "main_table", "parse_formats", "write_report"]


def main_table(
    results: pd.DataFrame,
    *,
    suite: str | None = None,
    select: str = "final",
    statistic: Statistic = "mean",
    history: pd.DataFrame | None = None,
    tunings: Sequence[Mapping[str, Any]] = (),
) -> pd.DataFrame:
    """Return the main table's numbers as a frame.

    Rows are methods by their printed names; columns are the suite's tasks, its groups, "mean of groups" and "mean of
    tasks" (percent, unrounded; NaN where a task is missing), and for ``statistic="mean"`` the trainable parameters
    with and without the head. ``statistic`` takes sample deviations over seeds or numbers of seeds instead. ``suite``
    defaults to the first that occurs in the catalogue's order. ``tunings`` (``shipbench.results.tunings.load_tunings``)
    give runs whose settings were tuned a row of their own.
    """
    study = build_study(results, history, get_selection(select), tunings)
    if suite is None and not study.suites:
        return main_frame(study, "vtab-1k", statistic)
    return main_frame(study, suite or study.suites[0], statistic)
