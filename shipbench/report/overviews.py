"""The top of a report: each suite's result under both selection rules, both means and each choice of settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.headline import Standing, headline, standings
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Overview, Result, Table
from shipbench.report.figures.pareto import pareto_figure
from shipbench.report.figures.standing import standing_figure
from shipbench.report.tables.main import main_results_table
from shipbench.report.tables.standing import standing_table

OTHER_RULE: Mapping[str, str] = {"final": "oracle", "oracle": "final"}
"""The rule that a page offers beside the chosen one."""


def overview(view: SuiteView, other: SuiteView | None) -> Overview | None:
    """Return the results of a suite, with those under another rule if ``other`` is given; None without accuracies."""
    results = list(_results(view, printed=True))
    alternatives = _results(other, printed=False) if other is not None else ()
    return Overview(f"{view.slug}-overview", view.name, (*results, *alternatives)) if results else None


def _results(view: SuiteView, *, printed: bool) -> Iterator[Result]:
    """Return the results of each choice of settings, the first of each with its main table.

    If it is ``printed``, the results section shows that of all settings.
    """
    for settings, arms in _choices(view):
        shown = printed and "all" in settings
        for i, standing in enumerate(standings(view, arms)):
            yield _result(view, standing, settings, None if i or shown else main_results_table(view, arms))


def _choices(view: SuiteView) -> list[tuple[tuple[str, ...], Sequence[Arm]]]:
    """Return choices of settings with their arms: all, and if these differ, those with default and tuned ones."""
    choices = {arm: view.study.choices_of(arm) for arm in view.arms}
    of_all = [choice for choice in ("default", "tuned") if all(choice in made for made in choices.values())]
    apart = [choice for choice in ("default", "tuned") if choice not in of_all]
    parts = [((choice,), [arm for arm, made in choices.items() if choice in made]) for choice in apart]
    return [(("all", *of_all), view.arms), *(part for part in parts if part[1])]


def _result(view: SuiteView, standing: Standing, settings: tuple[str, ...], detail: Table | None) -> Result:
    figure = pareto_figure(view, standing) or standing_figure(view, standing)
    table = standing_table(view, standing)
    sentence = headline(view, standing)
    return Result(view.study.selection.name, standing.kind, sentence, table, figure, settings, detail)
