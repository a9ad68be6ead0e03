"""The top of a report: each suite's result under both selection rules and both means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shipbench.report.analysis.headline import Standing, headline, standings
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Overview, Result
from shipbench.report.figures.pareto import pareto_figure
from shipbench.report.figures.standing import standing_figure
from shipbench.report.tables.main import main_results_table
from shipbench.report.tables.standing import standing_table

OTHER_RULE: Mapping[str, str] = {"final": "oracle", "oracle": "final"}
"""The rule that a page offers beside the chosen one."""


def overview(view: SuiteView, other: SuiteView | None) -> Overview | None:
    """Return the results of a suite, with those under another rule if ``other`` is given; None without accuracies."""
    results = [_result(view, standing) for standing in standings(view)]
    if not results:
        return None
    alternatives = _alternatives(other) if other is not None and other.arms else []
    return Overview(f"{view.slug}-overview", view.name, (*results, *alternatives))


def _result(view: SuiteView, standing: Standing) -> Result:
    figure = pareto_figure(view, standing) or standing_figure(view, standing)
    sentence = headline(view, standing)
    return Result(view.study.selection.name, standing.kind, sentence, standing_table(view, standing), figure)


def _alternatives(view: SuiteView) -> Sequence[Result]:
    results = [_result(view, standing) for standing in standings(view)]
    detail = main_results_table(view)
    return [replace(result, detail=detail if i == 0 else None) for i, result in enumerate(results)]
