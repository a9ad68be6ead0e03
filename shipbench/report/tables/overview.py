"""The top of a report: a leading sentence, and the facts about its records."""

from __future__ import annotations

import pandas as pd

from shipbench.counts import counted
from shipbench.record import IMPORTED
from shipbench.report.analysis.cautions import weights_source
from shipbench.report.analysis.study import Study
from shipbench.report.wording.captions import rule_sentence
from shipbench.report.wording.names import method_name, method_order, suite_cautions, suite_name
from shipbench.report.wording.text import joined, seed_list


def lead(study: Study) -> str:
    """Return the sentences under the title: number of runs and methods, suites, and the selection rule."""
    imported = study.records["kind"] == IMPORTED
    runs = study.records[~imported]
    suites = joined([suite_name(suite) for suite in study.suites])
    done, methods = int((runs["status"] == "done").sum()), counted(runs["method"].nunique(), "method")
    failed = f"{done:,} finished and {counted(len(runs) - done, 'failed run')}"
    texts = [f"{counted(done, 'finished run') if done == len(runs) else failed} of {methods}"]
    texts = texts if len(runs) or not imported.any() else []
    texts += [f"{counted(int(imported.sum()), 'imported result')}"] if imported.any() else []
    text = f"{' and '.join(texts)} on {suites or 'no suite'}."
    return " ".join([text, rule_sentence(study.selection), *suite_cautions(study.suites)])


def facts(study: Study) -> tuple[tuple[str, str], ...]:
    """Return named facts about the records, without those that are not recorded."""
    records, imported = study.records, study.records["kind"] == IMPORTED
    runs = records[~imported]
    methods = [method_name(method) for method in sorted(set(records["method"]), key=method_order)]
    named = (
        ("Runs", _runs(runs, int((study.counted_records["kind"] != IMPORTED).sum()))),
        ("Imported", _imported(records[imported])),
        ("Methods", ", ".join(methods)),
        ("Seeds", seed_list([int(seed) for seed in (runs if len(runs) else records)["seed"]])),
        ("Selection rule", study.selection.name),
        ("Backbones", _distinct(records["backbone"], _weights(records))),
        ("Image formats", _distinct(records["image_format"])),
        ("Devices", _distinct(records["device"], records["precision"])),
        ("Code", _distinct(records["shipbench_version"], records["git_commit"].str.slice(0, 10))),
        ("Dates", _days(runs["created"])),
    )
    return tuple((name, value) for name, value in named if value)


def _runs(runs: pd.DataFrame, counted_runs: int) -> str:
    done = runs["status"] == "done"
    numbers = f"{done.sum():,} finished, {(~done).sum():,} failed, {counted_runs:,} counted by the rule"
    return numbers if len(runs) else ""


def _imported(results: pd.DataFrame) -> str:
    origins = results["origin"].value_counts().sort_index()
    return ", ".join(f"{number:,} from {origin}" for origin, number in origins.items())


def _weights(records: pd.DataFrame) -> pd.Series[str]:
    """Return the start of the weights' hash and their source, if it is not the one that the backbone's name implies."""
    sources = records["checkpoint"].map(weights_source).map(lambda source: f"; {source}" if source else "")
    return (records["backbone_sha256"].str.slice(0, 12) + sources).str.removeprefix("; ")


def _distinct(names: pd.Series[str], details: pd.Series[str] | None = None) -> str:
    """List distinct names, each with its detail in parentheses."""
    pairs = zip(names, names.map(lambda _: "") if details is None else details, strict=True)
    return ", ".join(sorted({f"{name} ({detail})" if detail else name for name, detail in pairs if name or detail}))


def _days(created: pd.Series[str]) -> str:
    days = {time[:10] for time in created if time}
    return " to ".join(sorted({min(days), max(days)})) if days else ""
