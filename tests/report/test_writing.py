"""Writing a report: the requested files, no stale ones, and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from shipbench.cli import app
from shipbench.errors import InputError
from shipbench.report import ReportOptions, build_report, parse_formats, write_report
from tests.report.builders import VTAB_TASKS, grid, make_history, make_results


def suffixes(folder: Path) -> set[str]:
    return {path.suffix[1:] for path in folder.rglob("*") if path.is_file()} - {"json"}


def test_formats_are_written_where_they_belong(written: Path) -> None:
    assert (written / "index.html").is_file()
    assert (written / "report.md").is_file()
    assert (written / "results.csv").is_file()
    assert {path.suffix for path in (written / "tables").iterdir()} == {".md", ".tex", ".typ", ".csv"}
    assert {path.suffix for path in (written / "figures").iterdir()} == {".svg"}


def test_images_linked_from_markdown_exist(written: Path) -> None:
    text = (written / "report.md").read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in text.split("](")[1:] if part.startswith("figures/")]
    assert links
    assert all((written / link).is_file() for link in links)


@pytest.mark.parametrize("formats", [("csv",), ("md", "png"), ("html",), ("tex", "pdf"), ("typ",)])
def test_only_what_was_asked_for_is_written(formats: tuple[str, ...], tmp_path: Path) -> None:
    report = build_report(make_results(grid(("ship", "linear"), VTAB_TASKS[:2], (0,))))
    write_report(report, tmp_path, formats)
    assert suffixes(tmp_path) == {*formats, *(["bib"] if {"tex", "typ"} & set(formats) else [])}
    assert {path.parent.name for path in tmp_path.rglob("*") if path.suffix in (".png", ".pdf")} <= {"figures"}


def test_writing_twice_gives_the_same_bytes_and_removes_what_is_stale(tmp_path: Path) -> None:
    records = grid(("ship", "linear"), VTAB_TASKS[:2], (0, 1))
    formats = ("md", "csv", "svg", "html")
    write_report(build_report(make_results(records)), tmp_path, formats)
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "notes.txt").write_text("mine")
    write_report(build_report(make_results(records)), tmp_path, formats)
    assert {path: path.read_bytes() for path in first} == first
    write_report(build_report(make_results(records[:2])), tmp_path, ("csv",))
    assert suffixes(tmp_path) == {"csv", "txt"}
    assert not list((tmp_path / "figures").iterdir())


def test_a_manifest_cannot_delete_files_outside_the_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("keep")
    output = tmp_path / "report"
    output.mkdir()
    (output / "manifest.json").write_text(json.dumps({"files": ["../victim.txt", str(victim), 3]}))
    report = build_report(make_results(grid(("ship",), VTAB_TASKS[:1], (0,))))
    write_report(report, output, ("csv",))
    assert victim.read_text() == "keep"
    (output / "manifest.json").write_text("[" * 100_000)
    assert write_report(report, output, ("csv",))


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_report(build_report(make_results(grid(("ship",), VTAB_TASKS[:1], (0,)))), tmp_path / "file", ("csv",))


def test_formats_are_read_in_any_order_and_case() -> None:
    assert parse_formats("SVG, .html,md,md") == ("md", "html", "svg")


@pytest.mark.parametrize(("text", "message"), [("pgn", "did you mean 'png'"), ("", "empty"), (",", "empty")])
def test_wrong_formats_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_formats(text)


def test_records_may_lack_optional_columns(tmp_path: Path) -> None:
    bare = [
        {name: record[name] for name in ("run_id", "method", "task", "seed", "final_test_acc")}
        for record in grid(("a", "b", "c"), VTAB_TASKS, (0,))
    ]
    report = build_report(pd.DataFrame(bare), None, ReportOptions(published="none"))
    write_report(report, tmp_path, ("md", "tex", "csv", "html"))
    assert report.warnings == ()
    assert not any(table.name.startswith("cost") for table in report.tables())
    protocol = dict(report.protocol)
    assert protocol["Settings"] == "57 runs without a recorded recipe; how their settings were chosen is unknown."
    assert protocol["Data, VTAB-1k"] == "19 tasks; neither fingerprints nor image formats are recorded."
    assert protocol["Weights"] == "Not recorded."


def test_the_cost_table_counts_stacked_runs() -> None:
    records = grid(("ship",), VTAB_TASKS, (0, 1), stacked_runs=2) + grid(("linear",), VTAB_TASKS, (0, 1))
    (cost,) = (table for table in build_report(make_results(records)).tables() if table.name == "cost-vtab-1k")
    assert cost.notes[0].startswith("38 of 76 runs shared passes over the backbone with others")
    alone = build_report(make_results(records[38:])).tables()
    (notes,) = (table.notes for table in alone if table.name == "cost-vtab-1k")
    assert [note.partition(", which")[0] for note in notes] == [
        "The minutes and images/s of Linear probe leave out the features of the frozen backbone"
    ]


def test_costs_are_printed_in_the_units_of_their_columns() -> None:
    report = build_report(make_results(grid(("ship",), VTAB_TASKS[:2], (0,))))
    (cost,) = (table for table in report.tables() if table.name == "cost-vtab-1k")
    (row,) = cost.rows
    shown = {f"{c.group} {c.title}".strip(): cell.text for c, cell in zip(cost.columns, row.cells, strict=True)}
    assert list(shown.items())[2:] == [
        ("Parameters (M) with head", "0.30"),
        ("Parameters (M) without head", "0.25"),
        ("Parameters (M) total", "86.0"),
        ("GFLOPs per image", "17.6"),
        ("Images/s training", "800"),
        ("Images/s evaluation", "1,500"),
        ("Memory (GiB)", "3.00"),
        ("Minutes per run training", "2.00"),
        ("Minutes per run evaluation", "0.50"),
        ("Tasks", "2"),
        ("Runs", "2"),
    ]


def test_speeds_of_runs_with_different_threads_are_never_averaged() -> None:
    columns = {"train_images_per_second": 100.0, "threads": 1}
    one = [{**r, **columns} for r in grid(("ship",), VTAB_TASKS, (1, 2), device="cpu")]
    two = [
        {**r, **columns, "threads": 2, "train_images_per_second": 60.0}
        for r in grid(("ship",), VTAB_TASKS, (0,), device="cpu")
    ]
    report = build_report(make_results(two + one))
    (cost,) = (table for table in report.tables() if table.name == "cost-vtab-1k")
    at = [column.key for column in cost.columns].index("train_images_per_second")
    shown = [(row.cells[1].below, row.cells[at].value, row.cells[-1].value) for row in cost.rows]
    assert shown == [("fp32, 1 thread", 100.0, 38), ("fp32, 2 threads", 60.0, 19)]
    assert set(report.results["threads"]) == {1, 2}
    assert "stacked_runs" in report.results
    on_gpu = [{**record, "device": "cuda: NVIDIA H200"} for record in two + one]
    (cost,) = (t for t in build_report(make_results(on_gpu)).tables() if t.name == "cost-vtab-1k")
    assert [row.cells[1].below for row in cost.rows] == ["fp32"]


def store(folder: Path, records: list[dict[str, Any]]) -> Path:
    """Write records as the store does: a Parquet file per run, and one for its history."""
    for kind in ("runs", "history"):
        (folder / kind).mkdir(parents=True)
    for record in records:
        pd.DataFrame([record]).to_parquet(folder / "runs" / f"{record['run_id']}.parquet")
        history = make_history(record["run_id"], record["final_test_acc"], record["best_test_acc"], 20)
        history.to_parquet(folder / "history" / f"{record['run_id']}.parquet")
    return folder


def test_the_command_reports_records_with_the_essential_columns_alone(tmp_path: Path) -> None:
    (tmp_path / "results" / "runs").mkdir(parents=True)
    for record in grid(("a", "b", "c"), ("cifar", *VTAB_TASKS[1:]), (42,)):
        essential = {name: record[name] for name in ("run_id", "status", "method", "task", "seed", "final_test_acc")}
        pd.DataFrame([essential]).to_parquet(tmp_path / "results" / "runs" / f"{record['run_id']}.parquet")
    arguments = ["report", "--results", str(tmp_path / "results"), "--output", str(tmp_path / "out"), "--format", "csv"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    main = pd.read_csv(tmp_path / "out" / "tables" / "main-vtab-1k.csv").set_index("method")
    assert main.loc["a", "mean of tasks"] == pytest.approx(30 + 1.1 * 9)
    assert main["trainable_params"].isna().all()
    assert (tmp_path / "out" / "tables" / "ranks-vtab-1k.csv").exists()
    assert (tmp_path / "out" / "tables" / "significance-vtab-1k.csv").exists()


def test_the_command_reports_a_results_folder(tmp_path: Path) -> None:
    results = store(tmp_path / "results", grid(("ship", "linear"), VTAB_TASKS[:2], (0, 1)))
    output = tmp_path / "out"
    arguments = [
        "report",
        "--results",
        str(results),
        "--output",
        str(output),
        "--format",
        "md,csv",
        "--select",
        "oracle",
    ]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    text = (output / "report.md").read_text(encoding="utf-8")
    assert "Selection rule: oracle" in text
    assert str(tmp_path) not in text
    assert len(pd.read_csv(output / "results.csv")) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--select", "best"], "unknown rule"),
        (["--format", "docx"], "unknown format"),
        (["--published", "some"], "unknown choice"),
        (["--baseline", "vpt"], "no run of"),
    ],
)
def test_wrong_options_are_input_errors(arguments: list[str], message: str, tmp_path: Path) -> None:
    results = store(tmp_path / "results", grid(("ship",), VTAB_TASKS[:1], (0,)))
    done = CliRunner().invoke(app, ["report", "--results", str(results), "--output", str(tmp_path / "out"), *arguments])
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_an_empty_results_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "results" / "runs").mkdir(parents=True)
    done = CliRunner().invoke(app, ["report", "--results", str(tmp_path / "results")])
    assert isinstance(done.exception, InputError)
    assert "no records" in str(done.exception)
