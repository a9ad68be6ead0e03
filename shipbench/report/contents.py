"""The contents of a report: its sections in order, with the tables and figures of each.

A table or figure of a suite is a function of a ``SuiteView`` that returns None if there is nothing to show. To add one,
write the function and name it in ``SUITE_SECTIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd

from shipbench.counts import counted
from shipbench.errors import InputError, did_you_mean
from shipbench.record import EVALUATED, IMPORTED
from shipbench.report.analysis.embedding import LoadFeatures
from shipbench.report.analysis.long_form import long_form
from shipbench.report.analysis.oracle import oracle_gaps
from shipbench.report.analysis.predictions import LoadPredictions, with_chance
from shipbench.report.analysis.published import PublishedChoice
from shipbench.report.analysis.references import references
from shipbench.report.analysis.study import ImportedChoice, Study, build_study, with_selection
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure, Report, Section, Table
from shipbench.report.figures.ablation import ablation_figure
from shipbench.report.figures.classes import class_figures, reliability_figure
from shipbench.report.figures.curves import accuracy_curves_figure, loss_curves_figure, sweep_figure
from shipbench.report.figures.differences import task_differences_figure
from shipbench.report.figures.features import features_figure
from shipbench.report.figures.oracle import oracle_figure
from shipbench.report.figures.pareto import training_cost_figure
from shipbench.report.figures.ranks import rank_figure
from shipbench.report.figures.robustness import robustness_figure
from shipbench.report.figures.shots import shots_figure
from shipbench.report.figures.structure import structure_figures
from shipbench.report.figures.style import method_keys
from shipbench.report.overviews import OTHER_RULE, overview
from shipbench.report.tables.ablation import ablation_table
from shipbench.report.tables.agreement import agreement_table
from shipbench.report.tables.calibration import calibration_table
from shipbench.report.tables.cost import cost_table
from shipbench.report.tables.intervals import intervals_table
from shipbench.report.tables.main import main_results_table
from shipbench.report.tables.missing import missing_table
from shipbench.report.tables.oracle import oracle_table
from shipbench.report.tables.overview import facts, lead
from shipbench.report.tables.protocol import protocol_box
from shipbench.report.tables.ranks import ranks_table
from shipbench.report.tables.robustness import robustness_table
from shipbench.report.tables.settings import settings_table
from shipbench.report.tables.shots import shots_table
from shipbench.report.tables.significance import across_tasks_table, per_task_table
from shipbench.report.tables.variants import variants_table
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import method_order
from shipbench.report.wording.text import joined, printable
from shipbench.selection import get_selection

Item: TypeAlias = Table | Figure
Builder: TypeAlias = Callable[[SuiteView], Item | Sequence[Item] | None]


def ablation_items(view: SuiteView) -> list[Item]:
    """Return the table of every ablation followed by its figure."""
    items = [(ablation_table(view, ablation), ablation_figure(view, ablation)) for ablation in view.ablations]
    return [item for pair in items for item in pair if item is not None]


RESULTS: tuple[Builder, ...] = (
    main_results_table,
    oracle_figure,
    oracle_table,
    task_differences_figure,
    across_tasks_table,
    per_task_table,
    ranks_table,
    rank_figure,
    intervals_table,
    agreement_table,
)
CLASSES: tuple[Builder, ...] = (class_figures, calibration_table, reliability_figure)
ABLATIONS: tuple[Builder, ...] = (ablation_items, variants_table, sweep_figure)
SHIFTS: tuple[Builder, ...] = (robustness_table, robustness_figure)
SHOTS: tuple[Builder, ...] = (shots_table, shots_figure)
STRUCTURE: tuple[Builder, ...] = (structure_figures, features_figure)
TRAINING: tuple[Builder, ...] = (cost_table, training_cost_figure, accuracy_curves_figure, loss_curves_figure)

SUITE_SECTIONS: tuple[tuple[str, str, tuple[Builder, ...]], ...] = (
    ("results", "results", RESULTS),
    ("classes", "classes and calibration", CLASSES),
    ("ablations", "ablations and settings", ABLATIONS),
    ("shots", "few shots", SHOTS),
    ("robustness", "robustness", SHIFTS),
    ("structure", "blocks and features", STRUCTURE),
    ("training", "training and cost", TRAINING),
)
"""The sections of every suite: anchor, title, and the tables and figures in order."""

RECORDS: tuple[Callable[[Study], Table], ...] = (missing_table, settings_table)
"""The tables of the last section, which covers all suites."""


@dataclass(frozen=True)
class ReportOptions:
    """How a report is made: selection rule, baseline method, published and imported rows, title, and command."""

    select: str = "final"
    baseline: str | None = None
    published: PublishedChoice = "default"
    title: str = "Benchmark report"
    command: str = ""
    imported: ImportedChoice = "beside"

    def __post_init__(self) -> None:
        """Raise ``InputError`` for an unknown rule before any record is read."""
        get_selection(self.select)


def build_report(
    results: pd.DataFrame,
    history: pd.DataFrame | None = None,
    options: ReportOptions | None = None,
    *,
    predictions: LoadPredictions | None = None,
    features: LoadFeatures | None = None,
    tunings: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """Return the report of ``results`` (one row per run) and ``history`` (one row per evaluation).

    ``predictions`` returns the stored predictions of run ids (run_id, index, label, predicted); without it, everything
    computed from single images is left out. ``features`` returns the stored features of a run. ``tunings`` are the
    decisions of ``shipbench tune``. Figures are drawn when the report is written. Raises ``InputError`` for unusable
    records, an unknown rule, or a baseline without runs.
    """
    options = options or ReportOptions()
    if not len(results) or ("kind" in results and (results["kind"] == EVALUATED).all()):
        raise InputError("there are no records to report; run 'shipbench run' first")
    results = with_chance(results, predictions) if predictions else results
    study = build_study(results, history, get_selection(options.select), tunings, options.imported)
    if study.records.empty:
        raise InputError("there is nothing to report: every record is imported, and --imported none leaves those out")
    _check_baseline(study, options.baseline)
    views = [
        SuiteView(study, suite, options.baseline, options.published, predictions, features) for suite in study.suites
    ]
    other = _other_views(study, options)
    overviews = [overview(view, other.get(view.suite)) for view in views]
    records = Section("records", "Records", tuple(build(study) for build in RECORDS))
    sections = (*(section for view in views for section in _sections(view)), records)
    return Report(
        title=printable(options.title),
        lead=lead(study),
        facts=facts(study),
        warnings=(*_without_accuracy(study), *_warnings(sections)),
        sections=sections,
        results=long_form(study),
        command=printable(options.command),
        protocol=protocol_box(study),
        overviews=tuple(filter(None, overviews)),
        methods=method_keys(study),
        references=references(views),
        standing=caption("", study.selection, *study.suites).standing,
    )


def _other_views(study: Study, options: ReportOptions) -> dict[str, SuiteView]:
    """Return the suites that were tested during training under the other rule; empty if the rule has no other."""
    name = OTHER_RULE.get(study.selection.name)
    suites = [suite for suite in study.suites if oracle_gaps(study, suite)] if name else []
    if name is None or not suites:
        return {}
    other = with_selection(study, get_selection(name))
    return {suite: SuiteView(other, suite, options.baseline, options.published) for suite in suites}


def _check_baseline(study: Study, baseline: str | None) -> None:
    beside = [arm for suite in study.suites for arm in study.imported_beside(suite)]
    ranked = study.runs[~study.runs["arm"].isin([arm.key for arm in beside])]
    own = study.records[study.records["kind"] != IMPORTED]
    methods = sorted({*ranked["method"], *own["method"]}, key=method_order)
    if baseline is None or baseline in methods:
        return
    if baseline in {arm.method for arm in beside}:
        raise InputError(
            f"--baseline: all results of {baseline!r} are imported; add --imported all to compare with them"
        )
    if baseline in set(study.records["method"]):
        raise InputError(f"--baseline: no result of {baseline!r} has the epoch rule of --select {study.selection.name}")
    raise InputError(
        f"--baseline: no run of {baseline!r}{did_you_mean(baseline, methods)}; there are runs of {joined(methods)}"
    )


def _sections(view: SuiteView) -> list[Section]:
    """Return the sections of a suite that have content."""
    sections = [
        Section(f"{view.slug}-{anchor}", f"{view.name}: {title}", _items(view, builders))
        for anchor, title, builders in SUITE_SECTIONS
    ]
    return [section for section in sections if section.items]


def _items(view: SuiteView, builders: Sequence[Builder]) -> tuple[Item, ...]:
    items: list[Item] = []
    for build in builders:
        built = build(view)
        if isinstance(built, (Table, Figure)):
            items.append(built)
        elif built is not None:
            items += built
    return tuple(items)


def _without_accuracy(study: Study) -> tuple[str, ...]:
    """Say why a report has no result, if no record counts."""
    if len(study.counted_records):
        return ()
    done = int((study.records["status"] == "done").sum())
    rule = f"of {counted(done, 'finished run')}, none has an accuracy under the rule {study.selection.name}"
    return (f"No results: {rule if done else 'no run has finished'}. See the table of missing and failed runs.",)


def _warnings(sections: Sequence[Section]) -> tuple[str, ...]:
    """Return the warnings of all tables, each once with the titles of its tables."""
    titles: dict[str, list[str]] = {}
    for section in sections:
        for item in section.items:
            for warning in item.warnings if isinstance(item, Table) else ():
                titles.setdefault(warning, []).append(item.title)
    return tuple(f"{warning} In: {'; '.join(tables)}." for warning, tables in titles.items())
