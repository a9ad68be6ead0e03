"""Reports: tables, figures and pages as pure functions of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shipbench.report.analysis.study import ImportedChoice, build_study
from shipbench.report.contents import ReportOptions, build_report
from shipbench.report.notebook import show
from shipbench.report.tables.main import Statistic, main_frame
from shipbench.report.write import FORMATS, parse_formats, write_report
from shipbench.selection import get_selection
from shipbench.tasks import SUITES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "ReportOptions", "build_report", "main_table", "parse_formats", "show", "write_report"]


def main_table(
    results: pd.DataFrame,
    *,
    suite: str | None = None,
    select: str = "final",
    statistic: Statistic = "mean",
    history: pd.DataFrame | None = None,
    tunings: Sequence[Mapping[str, Any]] = (),
    imported: ImportedChoice = "all",
) -> pd.DataFrame:
    """Return the numbers of the main table as a frame.

    Rows are methods by printed name. Columns are the tasks and groups of the suite, "mean of groups" and "mean of
    tasks" (percent, unrounded; NaN where a task is missing) and, for ``statistic="mean"``, the trainable parameters
    with and without the head. A group ``bugs`` beside a task of that name is the column ``bugs (group)``, and a task
    called "method" or "mean of tasks" is the column ``method (task)`` or ``mean of tasks (task)``.
    ``statistic="deviation"`` returns sample deviations over seeds, ``"seeds"`` numbers of seeds. ``suite`` defaults to
    the first suite with runs, in the order of the catalogue. Runs that ``tunings``
    (``shipbench.results.tunings.load_tunings``) name get separate rows. Results of other harnesses are rows like any
    other unless ``imported`` is "none"; "beside" leaves them out where a suite has other rows. Raises ``InputError``
    for unusable records or an unknown rule.
    """
    study = build_study(results, history, get_selection(select), tunings, imported)
    if suite is None and not study.suites:
        return main_frame(study, SUITES[0].name, statistic)
    return main_frame(study, suite or study.suites[0], statistic)
