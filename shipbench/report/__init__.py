"""Reports: tables, figures and pages as pure functions of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from shipbench.errors import unknown
from shipbench.report.analysis.imported import imported_choice
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
    imported: ImportedChoice = "beside",
) -> pd.DataFrame:
    """Return the numbers of the main table as a frame.

    Rows are methods by printed name. Columns are the tasks and groups of the suite, "mean of groups" and "mean of
    tasks" (percent, unrounded; NaN where a task is missing) and, for ``statistic="mean"``, the trainable parameters
    with and without the head. A group ``bugs`` beside a task of that name is the column ``bugs (group)``, and a task
    called "method" or "mean of tasks" is the column ``method (task)`` or ``mean of tasks (task)``.
    ``statistic="deviation"`` returns standard deviations over seeds, ``"seeds"`` their numbers. ``suite`` defaults to
    the first suite with runs, in the order of the catalogue. Runs that ``tunings``
    (``shipbench.results.tunings.load_tunings``) name get separate rows. Results of other harnesses are left out where a
    suite has other rows, or with ``imported="none"``; with "all" they are rows like any other. ``attrs["warnings"]``
    lists what readers of the table need to know, such as that records have no seal. Raises ``InputError`` for unusable
    records, and for an unknown suite, rule, statistic or choice.
    """
    if statistic not in get_args(Statistic):
        raise unknown("statistic", statistic, get_args(Statistic))
    rule, choice = get_selection(select), imported_choice(imported)
    study = build_study(results, history, rule, tunings, "none" if choice == "beside" else choice)
    if choice == "beside" and not (study.suites if suite is None else suite in study.suites):
        study = build_study(results, history, rule, tunings, "all")
    suites = [*study.suites, *(of_catalogue.name for of_catalogue in SUITES)]
    if suite is not None and suite not in suites:
        raise unknown("suite", suite, dict.fromkeys(suites))
    return main_frame(study, suite or suites[0], statistic)
