"""The report of a set of records: which tables and figures it has, in which order, and what it says first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from shipbench.errors import InputError, did_you_mean
from shipbench.report.analysis.agreement import agreement
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import weights_source
from shipbench.report.analysis.comparisons import PairedComparison, paired_comparisons
from shipbench.report.analysis.differences import ablations
from shipbench.report.analysis.long_form import long_form
from shipbench.report.analysis.predictions import LoadPredictions, left_out, suite_predictions, with_chance
from shipbench.report.analysis.published import PublishedChoice
from shipbench.report.analysis.ranks import ranking
from shipbench.report.analysis.study import Study, build_study
from shipbench.report.analysis.suite import baseline_of
from shipbench.report.analysis.sweeps import sweeps
from shipbench.report.document import Figure, Report, Section, Table
from shipbench.report.figures.ablation import ablation_figure
from shipbench.report.figures.curves import sweep_figure, training_figure
from shipbench.report.figures.differences import task_differences_figure
from shipbench.report.figures.oracle import oracle_figure
from shipbench.report.figures.pareto import pareto_figure
from shipbench.report.figures.ranks import rank_figure
from shipbench.report.figures.structure import structure_figures
from shipbench.report.tables.ablation import ablation_table
from shipbench.report.tables.agreement import agreement_table
from shipbench.report.tables.cost import cost_table
from shipbench.report.tables.intervals import intervals_table
from shipbench.report.tables.main import main_results_table
from shipbench.report.tables.missing import missing_table
from shipbench.report.tables.oracle import oracle_table
from shipbench.report.tables.protocol import protocol_box
from shipbench.report.tables.ranks import ranks_table, unranked_note
from shipbench.report.tables.settings import settings_table
from shipbench.report.tables.significance import across_tasks_table, per_task_table
from shipbench.report.tables.sweeps import variants_table
from shipbench.report.wording.captions import rule_sentence
from shipbench.report.wording.names import DEMO_SENTENCE, DEMO_SUITES, method_name, method_order, suite_name
from shipbench.report.wording.text import counted, joined, printable, seed_list, slug
from shipbench.selection import get_selection


@dataclass(frozen=True)
class ReportOptions:
    """How a report is made: the selection rule, the baseline method of differences, the published rows shown."""

    select: str = "final"
    baseline: str | None = None
    published: PublishedChoice = "same"
    title: str = "Benchmark report"
    command: str = ""

    def __post_init__(self) -> None:
        """Refuse an unknown rule before any record is read."""
        get_selection(self.select)


def build_report(
    results: pd.DataFrame,
    history: pd.DataFrame | None = None,
    options: ReportOptions | None = None,
    *,
    predictions: LoadPredictions | None = None,
    tunings: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """Return the report of ``results`` (one row per run) and ``history`` (one row per evaluation).

    ``predictions`` returns the stored predictions of run ids (run_id, index, label, predicted); without it, what is
    computed from images is left out. ``tunings`` are the decisions of ``shipbench tune``.

    Nothing is drawn yet: figures draw themselves when they are written. Raises ``InputError`` for records that
    cannot be used, an unknown rule, or a baseline that was not run.
    """
    options = options or ReportOptions()
    if not len(results):
        raise InputError("there are no records to report; run 'shipbench run' first")
    results = with_chance(results, predictions) if predictions else results
    study = build_study(results, history, get_selection(options.select), tunings)
    _check_baseline(study, options.baseline)
    suites = (s for suite in study.suites for s in _suite_sections(study, suite, options, predictions))
    sections = (*suites, _records(study))
    return Report(
        title=printable(options.title),
        lead=_lead(study),
        facts=_facts(study),
        warnings=_warnings(sections),
        sections=sections,
        results=long_form(study),
        command=printable(options.command),
        protocol=protocol_box(study),
    )


def _check_baseline(study: Study, baseline: str | None) -> None:
    methods = sorted(set(study.records["method"]), key=method_order)
    if baseline is not None and baseline not in methods:
        raise InputError(
            f"--baseline: no run of {baseline!r}{did_you_mean(baseline, methods)}; there are runs of {joined(methods)}"
        )


def _suite_sections(
    study: Study, suite: str, options: ReportOptions, predictions: LoadPredictions | None
) -> list[Section]:
    """Return a suite's sections; a section without content is left out."""
    name, anchor = suite_name(suite), slug(suite)
    sections = (
        Section(f"{anchor}-results", f"{name}: results", _result_items(study, suite, options, predictions)),
        Section(f"{anchor}-ablations", f"{name}: ablations and settings", _ablation_items(study, suite)),
        Section(f"{anchor}-structure", f"{name}: block affinity and levels", tuple(structure_figures(study, suite))),
        Section(f"{anchor}-training", f"{name}: training and cost", _training_items(study, suite)),
    )
    return [section for section in sections if section.items]


def _result_items(
    study: Study, suite: str, options: ReportOptions, predictions: LoadPredictions | None
) -> tuple[Table | Figure, ...]:
    arms = study.arms_of(suite, main=True)
    if not arms:
        return ()
    found = ranking(study, suite)
    ranks = (ranks_table(study, suite, found), rank_figure(study, suite, found)) if found else ()
    baseline = baseline_of(study, suite, options.baseline)
    images = suite_predictions(study, suite, baseline or arms[0], predictions)
    tests = paired_comparisons(study, suite, baseline, images) if baseline else []
    unranked = [unranked_note(arms)] if not found and len(arms) > 2 else []
    gaps = [sentence] if predictions and (sentence := left_out(study, suite, images)) else []
    items = (
        main_results_table(
            study, suite, options.published, baseline.label if baseline else "", tests, [*gaps, *unranked]
        ),
        pareto_figure(study, suite),
        oracle_figure(study, suite),
        oracle_table(study, suite),
        *(_against(study, suite, baseline, tests, gaps) if baseline else ()),
        *ranks,
        intervals_table(study, suite, images, gaps),
        agreement_table(study, suite, agreement(study, suite, images), gaps),
    )
    return tuple(item for item in items if item is not None)


def _against(
    study: Study, suite: str, baseline: Arm, tests: Sequence[PairedComparison], gaps: Sequence[str]
) -> tuple[Table | Figure | None, ...]:
    return (
        task_differences_figure(study, suite, baseline),
        across_tasks_table(study, suite, baseline, tests, gaps),
        per_task_table(study, suite, baseline, tests, gaps),
    )


def _ablation_items(study: Study, suite: str) -> tuple[Table | Figure, ...]:
    items: list[Table | Figure | None] = []
    for number, ablation in enumerate(ablations(study, suite)):
        items += [ablation_table(study, suite, ablation, number), ablation_figure(study, suite, ablation, number)]
    items += [variants_table(study, suite), sweep_figure(study, suite, sweeps(study, suite))]
    return tuple(item for item in items if item is not None)


def _training_items(study: Study, suite: str) -> tuple[Table | Figure, ...]:
    if not study.arms_of(suite, main=True):
        return ()
    items = (cost_table(study, suite), *(training_figure(study, suite, what) for what in ("accuracy", "loss")))
    return tuple(item for item in items if item is not None)


def _records(study: Study) -> Section:
    return Section("records", "Records", (missing_table(study), settings_table(study)))


def _lead(study: Study) -> str:
    done = int((study.records["status"] == "done").sum())
    methods = sorted(set(study.records["method"]), key=method_order)
    suites = joined([suite_name(suite) for suite in study.suites])
    text = f"{counted(done, 'finished run')} of {counted(len(methods), 'method')} on {suites or 'no suite'}."
    demo = f" {DEMO_SENTENCE}" if any(suite in DEMO_SUITES for suite in study.suites) else ""
    return f"{text} {rule_sentence(study.selection)}{demo}"


def _facts(study: Study) -> tuple[tuple[str, str], ...]:
    records = study.records
    done = records["status"] == "done"
    counted_runs = int(records["accuracy"].notna().sum())
    methods = [method_name(method) for method in sorted(set(records["method"]), key=method_order)]
    facts = (
        ("Runs", f"{done.sum():,} finished, {(~done).sum():,} failed, {counted_runs:,} counted by the rule"),
        ("Methods", ", ".join(methods)),
        ("Seeds", seed_list([int(seed) for seed in records["seed"]])),
        ("Selection rule", study.selection.name),
        ("Backbones", _distinct(records["backbone"], _weights(records))),
        ("Image formats", _distinct(records["image_format"])),
        ("Devices", _distinct(records["device"], records["precision"])),
        ("Code", _distinct(records["shipbench_version"], records["git_commit"].str.slice(0, 10))),
        ("Made", " to ".join(sorted({min(days), max(days)})) if (days := _days(records["created"])) else ""),
    )
    return tuple((name, value) for name, value in facts if value)


def _weights(records: pd.DataFrame) -> pd.Series[str]:
    """Return the start of the weights' hash with where they came from, if that is not what the name stands for."""
    sources = records["checkpoint"].map(weights_source).map(lambda source: f"; {source}" if source else "")
    return (records["backbone_sha256"].str.slice(0, 12) + sources).str.removeprefix("; ")


def _distinct(names: pd.Series[str], details: pd.Series[str] | None = None) -> str:
    """List distinct names, each with its detail in parentheses."""
    pairs = zip(names, names.map(lambda _: "") if details is None else details, strict=True)
    found = sorted({f"{name} ({detail})" if detail else name for name, detail in pairs if name or detail})
    return ", ".join(found)


def _days(created: pd.Series[str]) -> list[str]:
    return sorted({time[:10] for time in created if time})


def _warnings(sections: Sequence[Section]) -> tuple[str, ...]:
    """Gather what tables mix, each sentence once, with the tables it is true of."""
    places: dict[str, list[str]] = {}
    for section in sections:
        for item in section.items:
            for warning in item.warnings if isinstance(item, Table) else ():
                places.setdefault(warning, []).append(item.title)
    return tuple(f"{warning} In: {'; '.join(titles)}." for warning, titles in places.items())
