"""Imported results in reports: beside the runs, among them, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from shipbench.errors import InputError
from shipbench.report import ReportOptions, build_report, main_table
from shipbench.report.analysis.imported import imported_choice
from shipbench.report.analysis.study import ImportedChoice, build_study
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Row, Table
from shipbench.report.tables.main import main_results_table
from shipbench.results.foreign.importing import import_results
from shipbench.results.foreign.registry import get_harness
from shipbench.results.loading import load_results
from shipbench.results.store import Store
from shipbench.selection import get_selection
from shipbench.statistics import average_ranks, friedman_test, nemenyi_distance
from tests.conftest import Outcome
from tests.data.formats.samples import samples
from tests.report.builders import VTAB_TASKS, grid, make_results
from tests.results.foreign.trees import imported, osu_result, write

Shipbench = Callable[..., Outcome]


def osu_folder(root: Path, tasks: tuple[str, ...] = VTAB_TASKS) -> Path:
    for i, task in enumerate(tasks):
        for method, params in (("lora", 294_912), ("linear", 0)):
            osu_result(root / "osu", task, method, 99.0 - i / 10, 99.5, params)
    return root / "osu"


def records(tmp_path: Path) -> pd.DataFrame:
    """Return three methods that were run, two imported from OSU-MLB, and one of a CSV file without an epoch rule."""
    imported("osu", osu_folder(tmp_path), tmp_path / "results")
    table = "method,task,accuracy,params,source\nPaper,dtd,70,0.29M,a paper\n"
    imported("csv", write(tmp_path / "paper.csv", table), tmp_path / "results")
    runs = make_results(grid(("linear", "vpt-deep", "ship"), VTAB_TASKS, (0, 1)))
    return pd.concat([runs, load_results(tmp_path / "results")], ignore_index=True)


def view_of(frame: pd.DataFrame, choice: ImportedChoice, select: str = "final") -> SuiteView:
    return SuiteView(build_study(frame, None, get_selection(select), (), choice), "vtab-1k")


def table_of(view: SuiteView) -> Table:
    table = main_results_table(view)
    assert table is not None
    return table


def rows_of(table: Table, kind: str) -> list[Row]:
    return [row for row in table.rows if row.kind == kind]


def test_beside_the_runs(tmp_path: Path) -> None:
    view = view_of(records(tmp_path), "beside")
    table = table_of(view)
    assert len(rows_of(table, "ours")) == 3
    names = [row.cells[0].text for row in rows_of(table, "imported")]
    assert [name.split(" (")[0] for name in names] == ["Linear probe", "LoRA", "Paper"]
    assert all("¶" in name and ("osu" in name or "csv" in name) for name in names)
    assert rows_of(table, "imported")[0].cells[0].below == "seed not stated"
    # They are better than everything that was run, and change neither marks, ranks nor tests.
    assert all(cell.mark == "" for row in rows_of(table, "imported") for cell in row.cells)
    assert any(cell.mark == "best" for row in rows_of(table, "ours") for cell in row.cells)
    assert view.ranking is not None
    assert len(view.ranking.arms) == 3
    assert len(view.comparisons) == 2
    assert any("38 results of osu" in note and "enter no mark, rank or test" in note for note in table.notes)


def test_a_rule_that_is_not_stated_enters_no_mean(tmp_path: Path) -> None:
    table = table_of(view_of(records(tmp_path), "beside"))
    row = rows_of(table, "imported")[-1]
    cells = {column.key: cell for column, cell in zip(table.columns, row.cells, strict=True)}
    assert (cells["dtd"].text, cells["dtd"].sign) == ("70.0", "?")
    assert {cell.text for key, cell in cells.items() if key not in ("method", "dtd")} == {""}
    assert any(note.startswith("? Imported without a statement") for note in table.notes)


def test_parameters_of_a_linear_probe_are_known(tmp_path: Path) -> None:
    table = table_of(view_of(records(tmp_path), "beside"))
    values = [row.cells[-1].value for row in rows_of(table, "imported")]
    assert values == [0.0, 294_912.0, None]


def test_among_the_runs(tmp_path: Path) -> None:
    view = view_of(records(tmp_path), "all")
    assert len(rows_of(table_of(view), "ours")) == 5
    assert view.ranking is not None
    assert len(view.ranking.arms) == 5
    assert any("recorded by another program" in warning for warning in table_of(view).warnings)


def test_not_at_all(tmp_path: Path) -> None:
    report = build_report(records(tmp_path), None, ReportOptions(imported="none"))
    assert "osu" not in set(report.results["origin"])
    assert "imported" not in report.lead


def test_a_suite_of_imported_results_alone_is_reported(tmp_path: Path) -> None:
    imported("osu", osu_folder(tmp_path), tmp_path / "results")
    report = build_report(load_results(tmp_path / "results"))
    assert "38 imported results on VTAB-1k" in report.lead
    assert any(table.name.startswith("main-") for table in report.tables())


def test_results_stand_under_their_own_rule_only(tmp_path: Path) -> None:
    text = "method,task,accuracy,epoch_rule\nA,dtd,70,final\nB,dtd,71,val\nC,dtd,72,best\n"
    imported("csv", write(tmp_path / "a.csv", text), tmp_path / "results")
    frame = load_results(tmp_path / "results")
    shown = {rule: list(main_table(frame, select=rule).index) for rule in ("final", "validation", "oracle")}
    assert shown == {"final": ["A"], "validation": ["B"], "oracle": ["C"]}


def test_the_whole_report_and_the_option(shipbench: Shipbench, tmp_path: Path) -> None:
    imported("osu", osu_folder(tmp_path), tmp_path / "results")
    arguments = ("--results", tmp_path / "results", "--output", tmp_path / "out", "--format", "md,tex,csv,html")
    assert shipbench("report", *arguments, "--imported", "all").code == 0
    assert "--imported all" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert shipbench("report", *arguments, "--imported", "some").code == 2
    with pytest.raises(InputError, match="did you mean 'beside'"):
        imported_choice("besides")


def test_the_public_table_of_osu(tmp_path: Path) -> None:
    """Sixteen methods on nineteen tasks, whose ranks were computed independently."""
    facts = json.loads((samples().parents[1] / "published" / "petl_settings.json").read_text())["osu_unified_runs"]
    for method, tasks in facts.items():
        for task, run in tasks.items() if isinstance(tasks, dict) else ():
            params = run["trainable_without_head"]
            osu_result(tmp_path / "osu", task, method, run["last"], run["best"], params, run["chosen"])
    # Nothing is stored: other tests write imported records and read them back.
    outcomes = import_results(get_harness("osu"), tmp_path / "osu", Store(tmp_path / "results"), dry_run=True)
    rows = [outcome.record.to_row() for outcome in outcomes if outcome.record is not None]
    scores = main_table(make_results(rows))[list(VTAB_TASKS)].T
    assert scores.shape == (19, 16)
    assert friedman_test(scores).statistic == pytest.approx(129.11, abs=0.005)
    ranks = average_ranks(scores)
    assert [round(float(rank), 2) for rank in (ranks.min(), ranks.max())] == [4.79, 14.39]
    assert 10.13 in {round(float(rank), 2) for rank in ranks}
    assert nemenyi_distance(16, 19) == pytest.approx(5.29, abs=0.005)
