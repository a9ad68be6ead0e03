"""Imported results in reports: beside the runs, among them, or not at all."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from shipbench.errors import InputError
from shipbench.report import ReportOptions, build_report, main_table
from shipbench.report.analysis.imported import imported_choice, stated_rows
from shipbench.report.analysis.oracle import oracle_gaps
from shipbench.report.analysis.study import ImportedChoice, build_study
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Row, Table, without_empty_columns
from shipbench.report.render.csv_text import table_rows
from shipbench.report.tables.cost import cost_table
from shipbench.report.tables.main import main_results_table
from shipbench.results.foreign.importing import import_results
from shipbench.results.foreign.registry import get_harness
from shipbench.results.loading import load_history, load_results
from shipbench.results.store import Store
from shipbench.selection import get_selection
from shipbench.statistics import average_ranks, friedman_test, nemenyi_distance
from tests.conftest import Shipbench
from tests.data.formats.samples import samples
from tests.report.builders import VTAB_TASKS, grid, make_results
from tests.results.foreign.trees import imported, osu_result, write


def osu_folder(root: Path, tasks: tuple[str, ...] = VTAB_TASKS) -> Path:
    for i, task in enumerate(tasks):
        for method, params in (("lora", 294_912), ("linear", 0)):
            osu_result(root / "osu", task, method, 99.0 - i / 10, 99.5, params)
    return root / "osu"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Three methods that were run, two imported from OSU-MLB, and one of a CSV file without an epoch rule."""
    folder = tmp_path_factory.mktemp("imported")
    imported("osu", osu_folder(folder), folder / "results")
    table = "method,task,accuracy,params,source\nPaper,dtd,70,0.29M,a paper\n"
    imported("csv", write(folder / "paper.csv", table), folder / "results")
    runs = make_results(grid(("linear", "vpt-deep", "ship"), VTAB_TASKS, (0, 1)))
    return pd.concat([runs, load_results(folder / "results")], ignore_index=True)


def view_of(frame: pd.DataFrame, choice: ImportedChoice, select: str = "final") -> SuiteView:
    return SuiteView(build_study(frame, None, get_selection(select), (), choice), "vtab-1k")


def table_of(view: SuiteView) -> Table:
    table = main_results_table(view)
    assert table is not None
    return table


def rows_of(table: Table, kind: str) -> list[Row]:
    return [row for row in table.rows if row.kind == kind]


def test_beside_the_runs(records: pd.DataFrame) -> None:
    view = view_of(records, "beside")
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


def test_what_limits_imported_results_is_noted(records: pd.DataFrame) -> None:
    assert not any("limits" in note for note in table_of(view_of(records, "beside")).notes)
    best, csv = "the best of all settings, chosen by test accuracy", "mean of 3 runs"
    notes = records["origin"].map({"osu": best, "csv": csv}).fillna("")
    view = view_of(records.assign(origin_note=notes), "beside")
    osu = (records["origin"] == "osu").sum()
    note = f"¶ What limits imported results: {best} ({osu} results of osu); {csv} (1 result of csv)."
    assert note in table_of(view).notes
    many = view_of(records.assign(origin_note=notes.where(notes != best, records["task"])), "beside")
    (note,) = (note for note in table_of(many).notes if "limits" in note)
    assert note.count("results of osu") == 4
    assert note.endswith("; 16 more in the column origin_note of the records.")


@pytest.mark.parametrize("choice", ["beside", "all"])
def test_what_limits_imported_results_is_noted_where_they_are_ranked(
    records: pd.DataFrame, choice: ImportedChoice
) -> None:
    limit = "the best of all settings, chosen by test accuracy"
    notes = records["origin"].map({"osu": limit}).fillna("")
    alone = records.assign(origin_note=notes)[records["kind"] == "imported"]
    frame = alone if choice == "beside" else records.assign(origin_note=notes)
    assert f"¶ What limits imported results: {limit} (38 results of osu)." in table_of(view_of(frame, choice)).notes


def test_the_sign_of_results_without_an_epoch_rule_is_explained(records: pd.DataFrame) -> None:
    table = table_of(view_of(records[records["origin"] != "osu"], "beside"))
    assert "¶" in rows_of(table, "imported")[0].cells[0].text
    assert any(note.startswith("¶ Imported results (1 result of csv) come from other") for note in table.notes)


def test_results_that_were_tested_once_have_no_oracle_gap(tmp_path: Path) -> None:
    for dataset, epochs in (("dtd", (9,)), ("svhn", (4, 9))):
        logs = tmp_path / f"output/vtab/adapter_plus_dim8/{dataset}/seed=1/logs"
        hparams = f"cfg: {{data: {{dataset: {dataset}, val_split: test}}, train: {{epochs: 10}}, seed: 1}}\n"
        write(logs / "hparams.yaml", hparams + "trainable_params: 236143\nnum_classes: 47\n")
        write(logs / "metrics.csv", "".join(["epoch,val/accuracy\n", *(f"{epoch},0.7\n" for epoch in epochs)]))
    imported("adapter-plus", tmp_path / "output", tmp_path / "results")
    records = load_results(tmp_path / "results")
    history = load_history(tmp_path / "results", records["run_id"])
    gaps = {
        task: oracle_gaps(build_study(records[records["task"] == task], history, get_selection("final")), "vtab-1k")
        for task in ("dtd", "svhn")
    }
    assert (len(records), gaps["dtd"], [gap.tasks for gap in gaps["svhn"]]) == (2, [], [1])


def test_an_imported_baseline_that_no_test_uses_is_refused(records: pd.DataFrame) -> None:
    options = ReportOptions(baseline="lora", imported="beside")
    with pytest.raises(InputError, match="all results of 'lora' are imported; add --imported all"):
        build_report(records, options=options)
    build_report(records, options=replace(options, imported="all"))
    build_report(records[records["kind"] == "imported"], options=options)


def test_the_mean_of_a_part_is_printed_if_imported_results_alone_have_one(tmp_path: Path) -> None:
    imported("osu", osu_folder(tmp_path, VTAB_TASKS[:3]), tmp_path / "results")
    runs = make_results(grid(("vpt-deep", "ship"), VTAB_TASKS, (0,)))
    table = table_of(view_of(pd.concat([runs, load_results(tmp_path / "results")], ignore_index=True), "beside"))
    assert any(note.startswith("The mean of these 3 tasks") for note in table.notes)
    printed = without_empty_columns(table)
    place = [column.title for column in printed.columns].index("mean of these 3 tasks")
    shown = [row.cells[place].text for row in printed.rows if row.kind in ("ours", "imported")]
    assert shown == ["", "", "98.9", "98.9"]


def test_a_rule_that_is_not_stated_enters_no_mean(records: pd.DataFrame) -> None:
    table = table_of(view_of(records, "beside"))
    row = rows_of(table, "imported")[-1]
    cells = {column.key: cell for column, cell in zip(table.columns, row.cells, strict=True)}
    assert (cells["dtd"].text, cells["dtd"].sign) == ("70.0", "?")
    assert {cell.text for key, cell in cells.items() if key not in ("method", "dtd")} == {""}
    assert any(note.startswith("? Imported without a statement") for note in table.notes)


def test_results_of_different_publications_or_files_are_never_averaged(tmp_path: Path) -> None:
    header = "method,task,accuracy,source\n"
    texts = {"a": "A,dtd,68,\nB,dtd,50,one paper\n", "b": "A,dtd,72,\nB,dtd,60,another\nB,svhn,90,one paper\n"}
    for name, lines in texts.items():
        imported("csv", write(tmp_path / f"{name}.csv", header + lines), tmp_path / "results")
    study = build_study(load_results(tmp_path / "results"), None, get_selection("final"))
    found = {(row.method, row.source): dict(row.means) for row in stated_rows(study, "vtab-1k")}
    a, b = (f"../{name}.csv" for name in texts)
    assert found == {
        ("A", f"csv, {a}"): {"dtd": pytest.approx(68)},
        ("A", f"csv, {b}"): {"dtd": pytest.approx(72)},
        ("B", "csv, another"): {"dtd": pytest.approx(60)},
        ("B", f"csv, one paper, {a}"): {"dtd": pytest.approx(50)},
        ("B", f"csv, one paper, {b}"): {"svhn": pytest.approx(90)},
    }


def test_different_settings_of_a_method_without_a_rule_are_never_averaged(tmp_path: Path) -> None:
    imported("csv", write(tmp_path / "a.csv", "method,task,accuracy\nA,dtd,68\n"), tmp_path / "results")
    one = load_results(tmp_path / "results").assign(**{"cfg.rank": 8})
    other = one.assign(**{"run_id": "another", "stated_acc": 0.72, "cfg.rank": 16})
    study = build_study(pd.concat([one, other], ignore_index=True), None, get_selection("final"))
    found = {row.source: row.means["dtd"] for row in stated_rows(study, "vtab-1k")}
    assert found == pytest.approx({"csv, rank 8": 68, "csv, rank 16": 72})


def test_publications_with_an_epoch_rule_have_arms_of_their_own(tmp_path: Path) -> None:
    header = "method,task,accuracy,epoch_rule,source\n"
    text = f"{header}A,dtd,68,final,one\nA,kitti,80,final,one\n"
    imported("csv", write(tmp_path / "a.csv", text), tmp_path / "results")
    text = f"{header}A,svhn,90,final,another\nA,dtd,72,final,another\n"
    imported("csv", write(tmp_path / "b.csv", text), tmp_path / "results")
    scores = main_table(load_results(tmp_path / "results"))[["dtd", "svhn", "kitti"]].T
    found = {label: scores[label].dropna().to_dict() for label in scores}
    assert found == {
        "A (one)": pytest.approx({"dtd": 68, "kitti": 80}),
        "A (another)": pytest.approx({"dtd": 72, "svhn": 90}),
    }


def test_other_data_under_the_name_of_a_task_enters_no_column(tmp_path: Path) -> None:
    tuned = json.dumps({"avg_acc": 90.0, "inserted_parameters": 0})
    write(tmp_path / "osu/cifar100_tune_lrwd/processed_vtab/cifar100/lora/final_result.json", tuned)
    write(tmp_path / "output/fgvc/adapter_plus_dim8/eval.log", "dtd\t1\t0.7\nCUB_200_2011\t1\t0.8\n")
    for harness, folder in (("osu", "osu"), ("adapter-plus", "output")):
        imported(harness, tmp_path / folder, tmp_path / "results")
    imported("csv", write(tmp_path / "a.csv", "method,task,accuracy\nA,dtd,68\n"), tmp_path / "results")
    frame = build_study(load_results(tmp_path / "results"), None, get_selection("final")).records
    places = set(frame[["origin", "task", "suite", "group"]].itertuples(index=False, name=None))
    assert places == {
        ("osu", "cifar100", "other", "Other"),
        ("adapter-plus", "dtd", "other", "Other"),
        ("adapter-plus", "cub-200-2011", "fgvc", "FGVC"),
        ("csv", "dtd", "vtab-1k", "Natural"),
    }


def test_costs_that_are_not_stated_are_blank(records: pd.DataFrame) -> None:
    table = cost_table(view_of(records, "all"))
    assert table is not None
    columns = [column.key for column in table.columns]
    row = next(row for row in table.rows if row.cells[0].text.startswith("LoRA"))
    for name in ("total_params", "peak_memory_bytes"):
        assert (row.cells[columns.index(name)].text, row.cells[columns.index(name)].value) == ("", None)
    assert row.cells[columns.index("trainable_params_without_head")].value == 294_912


def test_parameters_of_a_linear_probe_are_known(records: pd.DataFrame) -> None:
    table = table_of(view_of(records, "beside"))
    values = [row.cells[-1].value for row in rows_of(table, "imported")]
    assert values == [0.0, 294_912.0, None]


def test_among_the_runs(records: pd.DataFrame) -> None:
    view = view_of(records, "all")
    assert len(rows_of(table_of(view), "ours")) == 5
    assert view.ranking is not None
    assert len(view.ranking.arms) == 5
    assert any("recorded by another program" in warning for warning in table_of(view).warnings)


def owners(frame: pd.DataFrame, choice: ImportedChoice) -> dict[tuple[str, bool], set[str]]:
    """Return the owners of the rows of a report, by table and by whether another harness made the results."""
    report = build_report(frame, None, ReportOptions(imported=choice))
    found: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for table in report.tables():
        for row in table_rows(table) if table.records is None else ():
            if row["row"] not in ("published", "difference"):
                foreign = any(name in row["method"] for name in ("osu", "csv", "Paper"))
                found[table.name, foreign].add(row["row"])
    return dict(found)


@pytest.mark.parametrize("choice", ["beside", "all"])
def test_rows_say_whose_they_are(records: pd.DataFrame, choice: ImportedChoice) -> None:
    found = owners(records, choice)
    assert all(row == {"imported" if foreign else "ours"} for (_, foreign), row in found.items()), found
    ranked = ("overview", "ranks", "oracle-gaps", "cost") if choice == "all" else ()
    of_suite = {f"{name}-vtab-1k" for name in ("main", *ranked)}
    assert {name for name, foreign in found if foreign} == {*of_suite, "missing"}


def test_rows_of_a_suite_of_imported_results_alone_say_so(records: pd.DataFrame) -> None:
    found = owners(records[records["kind"] == "imported"], "beside")
    assert set.union(*found.values()) == {"imported"}
    assert {"main-vtab-1k", "overview-vtab-1k", "cost-vtab-1k", "missing"} <= {name for name, _ in found}


def test_results_that_do_not_count_are_listed_apart_from_those_of_runs(tmp_path: Path) -> None:
    """Neither LoRA's runs nor its imported results have an accuracy that was chosen on validation images."""
    imported("osu", osu_folder(tmp_path, VTAB_TASKS[:2]), tmp_path / "results")
    runs = make_results(grid(("lora",), VTAB_TASKS[:2], (0,)))
    frame = pd.concat([runs, load_results(tmp_path / "results")], ignore_index=True)
    report = build_report(frame, None, ReportOptions(select="validation"))
    (missing,) = (table for table in report.tables() if table.name == "missing")
    of_lora = {row["row"]: row["why"] for row in table_rows(missing) if row["method"] == "LoRA"}
    assert of_lora == {
        "ours": 'protocol "final": no accuracy under the rule "validation"',
        "imported": 'imported without an accuracy under the rule "validation"',
    }


def test_the_frame_of_the_main_table_holds_trained_runs_unless_told_otherwise(records: pd.DataFrame) -> None:
    trained = records[records["kind"] != "imported"]
    pd.testing.assert_frame_equal(main_table(records), main_table(trained))
    everything = main_table(records, imported="all")
    assert len(everything) > len(main_table(records)) == len(main_table(records, imported="none"))
    assert list(main_table(records).index) == ["Linear probe", "VPT-deep", "SHIP"]
    alone = records[records["kind"] == "imported"]
    assert len(main_table(alone)) > 0
    assert len(main_table(alone, imported="none")) == 0


@pytest.mark.parametrize("choice", ["beside", "all"])
def test_protocol_and_facts_are_those_of_the_runs(records: pd.DataFrame, choice: ImportedChoice) -> None:
    records = records.assign(n_train=1000)
    report, alone = (build_report(records, None, ReportOptions(imported=each)) for each in (choice, "none"))
    *protocol, (head, sentence) = report.protocol
    assert (tuple(protocol), head) == (alone.protocol, "Imported")
    # The result of the CSV file states no rule, so that it does not count.
    assert sentence.startswith("38 results of other harnesses (osu), ")
    assert sentence.endswith("; the other entries are about the runs alone.")
    facts, expected = dict(report.facts), dict(alone.facts)
    assert facts.pop("Imported") == "1 from csv, 38 from osu"
    assert {**facts, "Methods": ""} == {**expected, "Methods": ""}


def test_not_at_all(records: pd.DataFrame) -> None:
    report = build_report(records, None, ReportOptions(imported="none"))
    assert "osu" not in set(report.results["origin"])
    assert "imported" not in report.lead


def test_a_suite_of_imported_results_alone_is_reported(tmp_path: Path) -> None:
    imported("osu", osu_folder(tmp_path), tmp_path / "results")
    report = build_report(load_results(tmp_path / "results"))
    assert "38 imported results on VTAB-1k" in report.lead
    ((head, sentence),) = report.protocol
    assert head == "Imported"
    assert sentence == "38 results of other harnesses (osu), under protocols of their own."
    assert {"Runs", "Dates"} & dict(report.facts).keys() == set()
    assert dict(report.facts)["Seeds"] == "not stated"
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
    outcome = shipbench("report", *arguments, "--imported", "all", "--json")
    (main,) = (table for table in json.loads(outcome.out)["tables"] if table["name"] == "main-vtab-1k")
    assert {row["row"] for row in main["rows"] if row["method"] in ("Linear probe", "LoRA")} == {"imported"}
    lines = (tmp_path / "out" / "tables" / "main-vtab-1k.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in lines[:4]] == ["row", "imported", "imported", "published"]
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
