"""``--json``: standard output holds one document of a named schema; ``--progress json``: a JSON line per event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.builders import TINY, as_terminal, make_record, results_folder
from tests.conftest import Outcome, Shipbench
from tests.data.builders import vtab_tree

RUN_KEYS = [
    *("run_id", "method", "switches", "task", "suite", "shots", "seed", "protocol"),
    *("overrides", "status", "chosen", "record"),
]


@pytest.fixture
def line(tmp_path: Path, cache: Path) -> tuple[object, ...]:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    return (*TINY, "--tasks", "dtd", "--data", data, "--results", tmp_path / "r", "--device", "cpu")


def document(outcome: Outcome, schema: str, code: int = 0) -> dict[str, Any]:
    assert outcome.code == code, outcome.err
    read: dict[str, Any] = json.loads(outcome.out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert read["schema"] == schema
    return read


def events(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(text) for text in outcome.err.splitlines()]


def test_run(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    planned = document(shipbench("run", "--method", "linear", *line, "--json", "--dry-run"), "shipbench.run/1")
    assert planned["dry_run"] is True
    assert planned["runs"][0]["overrides"] == {"epochs": 1, "image_size": 64}
    assert [(run["status"], run["chosen"], run["record"]) for run in planned["runs"]] == [("to do", True, None)]
    done = document(shipbench("run", "--method", "linear", *line, "--json"), "shipbench.run/1")
    (run,) = done["runs"]
    assert list(run) == RUN_KEYS
    assert done["results"] == str(tmp_path / "r")
    assert run["record"]["run_id"] == run["run_id"] == planned["runs"][0]["run_id"]
    assert run["record"]["settings"]["epochs"] == 1
    assert 0 <= run["record"]["final_test_acc"] <= 1
    assert run["record"]["val_acc"] is None
    again = document(shipbench("run", "--method", "linear", *line, "--json"), "shipbench.run/1")
    assert [(run["status"], run["chosen"]) for run in again["runs"]] == [("done", False)]


def test_progress(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    outcome = shipbench("run", "--method", "linear", *line, "--json", "--progress", "json")
    (run,) = document(outcome, "shipbench.run/1")["runs"]
    of_run = [event for event in events(outcome) if event.get("run_id") == run["run_id"]]
    assert [event["event"] for event in of_run if event["event"] != "note"] == ["started", "epoch", "finished"]
    assert of_run[-1]["final_test_acc"] == run["record"]["final_test_acc"]
    assert events(outcome)[-1]["text"].startswith("next: shipbench report")


def test_failed_runs_are_in_the_document(
    shipbench: Shipbench, line: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        print("about to fail")
        raise RuntimeError("no")

    monkeypatch.setattr("shipbench_baselines.methods.LinearProbe.build", fail)
    outcome = shipbench("run", "--method", "linear", *line, "--json")
    (run,) = document(outcome, "shipbench.run/1", code=1)["runs"]
    assert (run["status"], run["record"]["error"]) == ("failed", "no")
    # What a method prints is no part of the document.
    assert "about to fail" in outcome.err


def test_refusals(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    plain = shipbench("run", "--method", "linear", *line, "--json", "--seeds", "x")
    assert (plain.code, plain.out) == (2, "")
    as_event = shipbench("run", "--method", "linear", *line, "--progress", "json", "--seeds", "x")
    assert (as_event.code, as_event.out) == (2, "")
    (event,) = events(as_event)
    assert (event["event"], event["exit_code"]) == ("error", 2)
    assert f"error: {event['text']}" == plain.err.strip()
    unknown = shipbench("run", "--method", "linear", *line, "--progress", "jsno")
    assert unknown.code == 2
    assert "--progress: unknown kind 'jsno' (did you mean 'json'?); choose from auto, plain, json" in unknown.err


def test_an_interruption(shipbench: Shipbench, line: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shipbench.engine.supervisor.execute_plan", stop)
    outcome = shipbench("run", "--method", "linear", *line, "--json", "--progress", "json")
    assert (outcome.code, outcome.out) == (130, "")
    last = events(outcome)[-1]
    assert (last["event"], last["exit_code"]) == ("error", 130)
    assert last["text"].startswith("stopped; finished runs")


def test_ablate(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    outcome = shipbench("ablate", "--switch", "no-hierarchy", *line, "--json")
    assert [run["switches"] for run in document(outcome, "shipbench.ablate/1")["runs"]] == ["", "no-hierarchy"]


def test_tune(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    command = ("tune", "--method", "linear", "--grid", "lr=0.1,0.2", *line, "--json")
    planned = document(shipbench(*command, "--dry-run"), "shipbench.tune/1")
    assert [run["protocol"] for run in planned["tuning_runs"]] == ["tuning", "tuning"]
    assert (planned["choices"], planned["runs"]) == ([], [])
    read = document(shipbench(*command), "shipbench.tune/1")
    (choice,) = read["choices"]
    (run,) = read["runs"]
    assert choice["final_runs"] == [run["run_id"]]
    assert run["record"]["settings"]["lr"] == choice["winner_settings"]["lr"]
    assert [trial["runs"] for trial in choice["trials"]] == [[row["run_id"]] for row in read["tuning_runs"]]


def test_report(shipbench: Shipbench, tmp_path: Path) -> None:
    results = results_folder(tmp_path / "r", [make_record("a1", final_test_acc=0.5, checkpoint="random")])
    outcome = shipbench("report", "--results", results, "--output", tmp_path / "o", "--format", "csv", "--json")
    read = document(outcome, "shipbench.report/1")
    assert read["records"] == 1
    assert all(Path(file).is_file() for file in read["files"])
    (main,) = [table for table in read["tables"] if table["name"] == "main-vtab-1k"]
    (row,) = [row for row in main["rows"] if row["row"] == "ours"]
    assert row["dtd"] == 50.0
    assert row["mean of tasks"] is None
    assert [(row["suite"], row["rule"], row["mean"]) for row in read["results"]] == [("VTAB-1k", "final", "tasks")]
    assert any(warning.startswith("Random weights: 1 run") for warning in read["warnings"])


def test_colours_and_widths(shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = results_folder(tmp_path / "r", [make_record("a1" * 8, final_test_acc=0.5)])
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    as_terminal(monkeypatch, 80)
    assert "\x1b[" in shipbench("list", "runs", "--results", results).out
    as_terminal(monkeypatch, 80)
    monkeypatch.setenv("NO_COLOR", "1")
    narrow = shipbench("list", "runs", "--results", results).out
    assert "\x1b" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    assert "\x1b" not in shipbench("list", "runs", "--results", results, "--json").out
