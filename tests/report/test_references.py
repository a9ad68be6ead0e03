"""references.bib: an entry for every method, suite, published row and test of the report, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from shipbench.methods import list_methods
from shipbench.report import ReportOptions, build_report, write_report
from shipbench.report.analysis.references import _entries
from tests.report.builders import DEMO_TASKS, VTAB_TASKS, grid, make_results


def keys(entries: tuple[str, ...]) -> set[str]:
    return {match[1] for entry in entries if (match := re.match(r"@\w+\{(\S+),", entry))}


def test_a_report_cites_what_it_shows() -> None:
    report = build_report(make_results(grid(("linear", "vpt-deep", "ship"), VTAB_TASKS, (0,))))
    cited = keys(report.references)
    assert {"zhu2025ship", "jia2022vpt", "zhai2019vtab", "demsar2006statistical", "han2024facing"} <= cited
    assert "hu2022lora" not in cited
    assert "guo2017calibration" not in cited


def test_every_published_row_is_cited_once(tmp_path: Path) -> None:
    records = make_results(grid(("vpt-deep", "ship"), VTAB_TASKS, (0,)))
    report = build_report(records, options=ReportOptions(published="all"))
    write_report(report, tmp_path, ("tex",))
    text = (tmp_path / "references.bib").read_text(encoding="utf-8")
    assert "Res-Tuning" in text
    assert "cites" not in text
    assert len(keys(report.references)) == len(report.references) == text.count("\n}\n")


def test_a_demo_report_does_not_cite_the_benchmark() -> None:
    report = build_report(make_results(grid(("vpt-deep", "ship"), DEMO_TASKS, (0,))))
    assert "zhai2019vtab" not in keys(report.references)


def test_every_method_of_a_paper_has_an_entry() -> None:
    marks = {mark for _, marks in _entries() for mark in marks}
    without_paper = {"full", "linear", "partial", "ln-tuning"}
    names = {name for name in list_methods() if not name.startswith("peft-")} - without_paper
    assert {name for name in names if f"method:{name}" not in marks} == set()


def test_tuners_of_the_peft_library_cite_the_library() -> None:
    report = build_report(make_results(grid(("linear", "peft-lora"), DEMO_TASKS, (0,))))
    assert "mangrulkar2022peft" in keys(report.references)
