"""``shipbench demo`` prints its two commands, writes a report, explains the result and suggests commands."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shipbench import load_results
from shipbench.cli import demo
from shipbench.cli.options import GridOptions
from shipbench.cli.run import plan_runs
from shipbench.engine.attempt import failed_record
from shipbench.methods import parse_methods
from shipbench.results.store import Store
from shipbench.tasks import parse_tasks
from tests.cli.builders import make_record
from tests.conftest import Shipbench

SCORES = {"linear": 0.55, "vpt-deep": 0.91, "ship": 0.925}


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[str]:
    """Write made-up records in place of training on demo-tiny; the ids of the runs are collected."""
    ids: list[str] = []

    def execute(methods: str, options: GridOptions) -> None:
        for run in plan_runs(demo.specs(demo.Selection(methods, options.tasks), options), options).chosen:
            blank = failed_record(run, None, "")
            scores = {"final_test_acc": SCORES[run.spec.method], "best_test_acc": 0.95, "chance_acc": 0.25}
            Store(options.results).write(replace(blank, status="done", **scores))
            ids.append(run.run_id)

    monkeypatch.setattr(demo, "QUICK", replace(demo.QUICK, tasks="demo-tiny"))
    monkeypatch.setattr("shipbench.cli.demo.run_grid", execute)
    return ids


def test_a_report_that_could_not_be_written_is_refused_before_any_run(
    shipbench: Shipbench, executed: list[str], tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    outcome = shipbench("demo", "--results", tmp_path / "r", "--output", tmp_path / "taken")
    assert (outcome.code, executed) == (2, [])
    assert f"--output: {tmp_path / 'taken'} is a file; name a folder" in outcome.err


def test_a_file_in_place_of_the_results_is_refused_by_the_option_that_names_it(
    shipbench: Shipbench, executed: list[str], tmp_path: Path
) -> None:
    (tmp_path / "report").touch()
    for results in (tmp_path / "report", tmp_path):
        outcome = shipbench("demo", "--results", results)
        assert (outcome.code, executed) == (2, [])
        assert outcome.err == f"error: --results: {tmp_path / 'report'} is a file; name a folder\n"


def test_a_demo_is_a_run_and_a_report(shipbench: Shipbench, executed: list[str], tmp_path: Path) -> None:
    outcome = shipbench("demo", "--results", tmp_path / "r", "--output", tmp_path / "page")
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines()[:2] == [
        f"$ shipbench run --method linear,vpt-deep,ship --tasks demo-tiny --results {tmp_path / 'r'}",
        f"$ shipbench report --results {tmp_path / 'r'} --output {tmp_path / 'page'}",
    ]
    assert sorted(load_results(tmp_path / "r")["run_id"]) == sorted(executed)
    page = tmp_path / "page" / "index.html"
    assert outcome.out.splitlines()[-1] == str(page)
    assert page.stat().st_size > 0
    assert "SHIP leads with 92.5 % test accuracy on average over 1 task, 1.5 points ahead of VPT-deep" in outcome.err
    assert "a demonstration, not a benchmark" in outcome.err
    assert [line.split("#")[0].strip() for line in outcome.err.splitlines()[-3:]] == [
        f"next: shipbench demo --full --results {tmp_path / 'r'} --output {tmp_path / 'page'}",
        "next: shipbench data verify folder:PATH",
        "next: shipbench data fetch --to data/vtab-1k",
    ]


@pytest.mark.parametrize(
    ("options", "suggested"),
    [
        ((), "shipbench demo --full"),
        (("--results", "results"), "shipbench demo --full --results results"),
        (("--full",), "shipbench run --method all --tasks demo --seeds 0-2 --results results/demo"),
        (("--full", "--results", "results"), "shipbench run --method all --tasks demo --seeds 0-2"),
    ],
)
def test_the_next_command_finds_the_runs_of_the_demo(
    shipbench: Shipbench,
    executed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: tuple[str, ...],
    suggested: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "FULL", demo.QUICK)
    monkeypatch.setattr(demo, "make_report", lambda choices: None)
    outcome = shipbench("demo", *options)
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines()[-3].split("  #")[0] == f"next: {suggested}"


def test_a_repeated_demo_executes_nothing_again(shipbench: Shipbench, executed: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        assert shipbench("demo", "--results", tmp_path / "r").code == 0
    assert len(executed) == 3
    assert (tmp_path / "r" / "report" / "index.html").exists()


def test_a_failed_run_ends_the_demo(
    shipbench: Shipbench, executed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shipbench.cli.demo.run_grid", lambda *_: sys.exit(1))
    outcome = shipbench("demo", "--results", tmp_path / "r")
    assert outcome.code == 1
    assert not (tmp_path / "r" / "report").exists()


def test_what_the_two_demos_run_exists() -> None:
    assert {method.name for method in parse_methods(demo.QUICK.methods)} == {"linear", "vpt-deep", "ship"}
    assert {task.suite for task in parse_tasks(demo.QUICK.tasks)} <= {"demo", "demo-tiny"}
    assert len(parse_methods(demo.FULL.methods)) >= 5
    assert len(parse_tasks(demo.FULL.tasks)) == 6


def test_the_conclusion_counts_the_tasks_that_the_leader_wins() -> None:
    scores = {
        ("ship", "digits"): 0.9,
        ("ship", "textures"): 0.7,
        ("linear", "digits"): 0.95,
        ("linear", "textures"): 0.6,
    }
    records = [make_record(m + t, method=m, task=t, final_test_acc=score) for (m, t), score in scores.items()]
    sentence = demo._conclusion(records)
    assert "SHIP leads with 80.0 % test accuracy on average over 2 tasks, 2.5 points ahead of Linear probe" in sentence
    assert "is the best method on 1 of 2." in sentence
    tied = [replace(record, final_test_acc=0.9) if record.task == "digits" else record for record in records]
    assert "is the best method on 1 of 2." in demo._conclusion(tied)


@pytest.mark.parametrize(
    ("terminal", "environment", "opened"),
    [
        (True, {"DISPLAY": ":0"}, True),
        (True, {"WAYLAND_DISPLAY": "wayland-0"}, True),
        (True, {}, False),
        (True, {"DISPLAY": ":0", "CI": "true"}, False),
        (False, {"DISPLAY": ":0"}, False),
    ],
)
def test_a_page_opens_only_where_someone_looks(
    shipbench: Shipbench,
    executed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    terminal: bool,
    environment: dict[str, str],
    opened: bool,
) -> None:
    addresses: list[str] = []
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setattr("webbrowser.open", addresses.append)
    monkeypatch.setattr("shipbench.cli.report.report", lambda **_: None)
    assert shipbench("demo", "--results", tmp_path / "r").code == 0
    assert addresses == ([(tmp_path / "r" / "report" / "index.html").as_uri()] if opened else [])
