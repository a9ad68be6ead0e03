"""references.bib: an entry for everything of the report that a paper describes, and no other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from shipbench.methods import list_methods
from shipbench.published import published_rows
from shipbench.report import ReportOptions, build_report, write_report
from shipbench.report.analysis.references import _entries, analyses
from shipbench.report.analysis.study import ImportedChoice, build_study
from shipbench.report.analysis.suite import SuiteView
from shipbench.results.foreign.registry import harness_names
from shipbench.selection import Final
from shipbench.tasks import SUITES
from tests.report.builders import DEMO_TASKS, VTAB_TASKS, Records, grid, make_predictions, make_record, make_results
from tests.report.test_robustness import evaluated, loader

WITHOUT_PAPER = {"full", "linear", "partial", "ln-tuning"}
REQUIRED = {"inproceedings": {"booktitle"}, "article": {"journal"}, "misc": {"eprint", "howpublished"}}


def keys(entries: tuple[str, ...]) -> set[str]:
    return {match[1] for entry in entries if (match := re.match(r"@\w+\{(\S+),", entry))}


def cited(records: Records, **options: str) -> set[str]:
    return keys(build_report(make_results(records), options=ReportOptions(**options)).references)


def marks() -> set[str]:
    return {mark for _, marks in _entries() for mark in marks}


def test_a_report_cites_what_it_shows() -> None:
    entries = cited(grid(("linear", "vpt-deep", "ship"), VTAB_TASKS, (0,)))
    assert {"zhu2025ship", "jia2022vpt", "zhai2019vtab", "demsar2006statistical", "han2024facing"} <= entries
    others = {"hu2022lora", "guo2017calibration", "mai2025lessons", "hendrycks2019benchmarking", "mcnemar1947note"}
    assert not entries & {*others, "vandermaaten2008visualizing", "mangrulkar2022peft"}


def test_every_published_row_is_cited_once(tmp_path: Path) -> None:
    records = make_results(grid(("vpt-deep", "ship"), VTAB_TASKS, (0,)))
    report = build_report(records, options=ReportOptions(published="all"))
    write_report(report, tmp_path, ("tex",))
    text = (tmp_path / "references.bib").read_text(encoding="utf-8")
    assert "Res-Tuning" in text
    assert "cites" not in text
    assert len(keys(report.references)) == len(report.references) == text.count("\n}\n")


def test_a_demo_report_does_not_cite_the_benchmark() -> None:
    assert "zhai2019vtab" not in cited(grid(("vpt-deep", "ship"), DEMO_TASKS, (0,)))


def test_fgvc_cites_the_paper_of_its_splits() -> None:
    assert "jia2022vpt" in cited([make_record("linear", "nabirds")])


def test_a_method_that_stands_in_an_ablation_alone_is_cited() -> None:
    assert "hu2022lora" in cited([make_record("linear", "dtd"), make_record("lora", "dtd", switches="no-bias")])


@pytest.mark.parametrize("choice", ["beside", "all"])
def test_imported_results_cite_their_methods_and_their_harness(choice: ImportedChoice) -> None:
    records = [
        make_record("linear", "dtd"),
        make_record("lora", "dtd", kind="imported", origin="osu", epoch_rule="final"),
        make_record("ssf", "dtd", kind="imported", origin="vpetl", epoch_rule="", stated_acc=0.7),
    ]
    assert {"hu2022lora", "mai2025lessons", "lian2022ssf", "xin2024vpetl"} <= cited(records, imported=choice)
    assert cited(records, imported="none", published="none") == {"zhai2019vtab"}


def test_the_source_of_an_imported_result_is_cited_if_it_is_that_of_a_published_row() -> None:
    row = next(row for row in published_rows() if f"paper:{row.paper}" not in marks())
    imported = {"kind": "imported", "origin": "csv", "epoch_rule": "", "stated_acc": 0.7}
    sources = (row.source, "Visual Prompt Tuning (Jia et al.), ECCV 2022", "mail of 3 May")
    records = [make_record("Paper", "dtd", reference=source, **imported) for source in sources]
    text = "\n".join(build_report(make_results([make_record("linear", "dtd"), *records])).references)
    assert row.paper.replace("&", "\\&") in text
    assert "jia2022vpt" in text
    assert "mail" not in text


@pytest.mark.parametrize(("corruption", "is_cited"), [("blur", True), ("", False)])
def test_corruptions_are_cited_where_images_were_corrupted(corruption: str, is_cited: bool) -> None:
    parent = make_record("linear", "dtd")
    other = evaluated(parent, 0.2, corruption, 3 if corruption else 0, data_fingerprint="other")
    assert ("hendrycks2019benchmarking" in cited([parent, other])) is is_cited


@pytest.mark.parametrize(("images", "is_cited"), [(20, True), (4, False)])
def test_t_sne_is_cited_where_it_is_drawn(images: int, is_cited: bool) -> None:
    frame = pd.DataFrame({"index": range(images), "label": 0, "f0": range(images)})
    report = build_report(make_results([make_record("linear", "dtd")]), features=lambda run_id: frame)
    assert any(figure.name.startswith("features") for figure in report.figures()) is is_cited
    assert ("vandermaaten2008visualizing" in keys(report.references)) is is_cited


@pytest.mark.parametrize(("seeds", "is_cited"), [((0,), True), ((0, 1), False)])
def test_mcnemars_test_is_cited_where_a_single_seed_is_tested(seeds: tuple[int, ...], is_cited: bool) -> None:
    records = grid(("vpt-deep", "ship"), ("digits", "textures"), seeds)
    report = build_report(make_results(records), predictions=loader(make_predictions(records)))
    assert ("mcnemar1947note" in keys(report.references)) is is_cited


def test_every_method_of_a_paper_has_an_entry() -> None:
    names = {name for name in list_methods() if f"method:{name}" not in marks()}
    # A later release of the library may bring other tuners.
    assert {name for name in names if not name.startswith("peft-")} == WITHOUT_PAPER
    assert sum(mark.startswith("method:peft-") for mark in marks()) == 34


def test_tuners_of_the_peft_library_cite_their_paper_and_the_library() -> None:
    entries = cited(grid(("linear", "peft-lora", "peft-vera"), DEMO_TASKS, (0,)))
    assert {"mangrulkar2022peft", "hu2022lora", "kopiczko2024vera"} <= entries
    assert "liu2024dora" not in entries


@pytest.mark.parametrize(
    "entry", [entry for entry, _ in _entries()], ids=lambda entry: entry.split("{")[1].split(",")[0]
)
def test_an_entry_is_well_formed(entry: str) -> None:
    head, *lines, end = entry.split("\n")
    kind = re.fullmatch(r"@(\w+)\{[a-z]+\d{4}[a-z0-9]*,", head)
    pairs = [re.fullmatch(r"  (\w+) = \{(.+)\},?", line) for line in lines]
    fields = {pair[1]: pair[2] for pair in pairs if pair}
    assert kind is not None
    assert end == "}"
    assert len(fields) == len(lines)
    assert all(line.endswith(",") for line in lines[:-1])
    assert not lines[-1].endswith(",")
    assert {"title", "author", "year"} <= set(fields)
    assert REQUIRED[kind[1]] & set(fields)
    assert head.count(fields["year"]) == 1
    assert all(value.count("{") == value.count("}") for value in fields.values())
    assert ("eprint" in fields) == (fields.get("archivePrefix") == "arXiv")
    assert re.fullmatch(r"\d{4}\.\d{4,5}", fields.get("eprint", "0000.0000"))


def test_entries_have_keys_of_their_own_and_stand_for_what_exists() -> None:
    entries = tuple(entry for entry, _ in _entries())
    assert len(keys(entries)) == len(entries)
    assert all(marks for _, marks in _entries())
    view = SuiteView(build_study(make_results([make_record()]), None, Final()), "vtab-1k")
    known = {
        *(f"method:{name}" for name in list_methods()),
        *(f"suite:{suite.name}" for suite in SUITES),
        *(f"paper:{row.paper}" for row in published_rows()),
        *(f"origin:{name}" for name in harness_names()),
        *analyses(view),
        "library:peft",
    }
    # Releases of the library differ in their tuners.
    assert {mark for mark in marks() - known if not mark.startswith("method:peft-")} == set()


def test_every_harness_of_a_paper_has_an_entry() -> None:
    assert {name for name in harness_names() if f"origin:{name}" not in marks()} == {"csv"}


def test_no_paper_has_two_entries() -> None:
    numbers = Counter(re.findall(r"eprint = \{(\S+)\}", "\n".join(entry for entry, _ in _entries())))
    assert set(numbers.values()) == {1}
