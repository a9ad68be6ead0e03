"""``shipbench tune``: chosen on validation images alone, then retrained and tested once."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipbench import RunSpec, load_results
from shipbench.cli import study_tables, tables
from shipbench.errors import ShipbenchError
from shipbench.planning.tuning import Choice, Decision, Trial
from shipbench.results.tunings import load_tunings
from shipbench.runs import preparation
from shipbench.tasks import get_task
from shipbench.training.inputs import image_inputs
from tests.cli.builders import TINY
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree
from tests.tasks.pictures import image_folder


@pytest.fixture
def tree(tmp_path: Path, cache: Path) -> Path:
    return vtab_tree(tmp_path / "data", tasks=("dtd", "svhn"))


@pytest.fixture
def line(tree: Path, tmp_path: Path) -> tuple[object, ...]:
    return (*TINY, "--method", "linear", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r")


def without_test(tree: Path) -> None:
    for task in ("dtd", "svhn"):
        (tree / task / "test.txt").unlink()
        shutil.rmtree(tree / task / "images" / "test")


def test_a_choice_at_the_end_of_a_grid_is_told() -> None:
    trials = [Trial({"lr": lr, "epochs": 4}, ("r",), (1 - lr,), 100) for lr in (3e-5, 1e-4, 3e-4)]
    assert tables._verdict(trials, Choice(0)) == "chosen: lr=3e-05, epochs=4; lr is the lowest of the grid"
    assert tables._verdict(trials, Choice(1)) == "chosen: lr=0.0001, epochs=4"
    made = SimpleNamespace(search=SimpleNamespace(method="full", tasks=("dtd",)), trials=trials, choice=Choice(2))
    line = study_tables.describe_decision(cast("Decision", made))
    assert line == "full on dtd: chose lr=0.0003, epochs=4 (100.0 % on validation); lr is the highest of the grid"
    made.trials[0] = replace(trials[0], error="a loss that is not finite")
    line = study_tables.describe_decision(cast("Decision", made))
    assert "validation); 1 of 3 settings excluded because of a failed run; lr is the highest" in line


def test_the_table_of_a_choice_tells_scores_costs_and_ties(capsys: pytest.CaptureFixture[str]) -> None:
    trials = (
        Trial({"lr": 0.1}, ("a", "b"), (0.5, 0.7), 1234.0),
        Trial({"lr": 0.2}, ("c", "d"), (0.6, 0.6), 100.0),
        Trial({"lr": 0.3}, ("e", "f"), (math.nan, 0.5), math.nan, "the loss is not finite"),
    )
    search: Any = SimpleNamespace(
        method="linear",
        tasks=("dtd",),
        opened_tasks=[get_task("dtd")],
        axes={"lr": ()},
        specs=[SimpleNamespace(shots=4)],
    )
    tables.print_choice(Decision(search, trials, Choice(1, (0, 1), "fewer parameters")))
    search.tasks, search.specs[0].shots = ("dtd", "svhn"), None
    tables.print_choice(Decision(search, trials[:1], Choice(0)))
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert rows == [
        ["0.1", "60.0 ± 14.1", "1,234", "tied"],
        ["0.2", "60.0 ± 0.0", "100", "chosen"],
        ["0.3", "failed: the loss is not finite", "", ""],
        # A deviation over tasks would not be one over seeds.
        ["0.1", "60.0", "1,234", "chosen"],
    ]
    titles = [" ".join(line.split()) for line in out.splitlines() if "accuracy on" in line]
    assert titles == [f"linear on dtd{shots}: accuracy on val200, %" for shots in (", 4 per class", "")]
    verdict = "chosen: lr=0.2; 2 tied, decided by: fewer parameters; 1 of 3 settings excluded because of a failed run"
    assert out.count(verdict) == 1


def test_tuned_then_retrained_and_tested_once(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    grid = ("--grid", "lr=0.1,0.001", "--grid", "weight_decay=0,0.1")
    outcome = shipbench("tune", *line, *grid, "--seeds", "0-1")
    assert outcome.code == 0, outcome.err
    assert "4 runs: 4 to do" in outcome.err
    assert "chosen:" in outcome.out
    frame = load_results(tmp_path / "r")
    tuning, final = frame[frame["protocol"] == "tuning"], frame[frame["protocol"] == "final"]
    assert (len(tuning), len(final)) == (4, 2)
    assert set(tuning["n_train"]) == {8}
    assert set(final["n_train"]) == {10}
    assert tuning["final_test_acc"].isna().all()
    assert tuning["best_test_acc"].isna().all()
    assert list(final["seed"]) == [0, 1]
    assert list(final["chance_acc"]) == pytest.approx([1 / 6] * 2)
    (kept,) = load_tunings(tmp_path / "r")
    best = tuning["val_acc"].max()
    assert kept["trials"][kept["winner"]]["mean_val_acc"] == best
    assert set(kept["final_runs"]) == set(final["run_id"])
    assert {run for trial in kept["trials"] for run in trial["runs"]} == set(tuning["run_id"])
    for key, value in kept["winner_settings"].items():
        assert set(final[f"cfg.{key}"]) == {value}
    assert "4 runs: 0 to do, 4 done" in shipbench("tune", *line, *grid, "--seeds", "0-1").err


def test_tuning_needs_no_test_images(
    shipbench: Shipbench, line: tuple[object, ...], tree: Path, tmp_path: Path
) -> None:
    without_test(tree)
    outcome = shipbench("tune", *line, "--grid", "lr=0.1,0.001")
    assert outcome.code == 2
    assert "test.txt is missing" in outcome.err
    (kept,) = load_tunings(tmp_path / "r")
    assert kept["winner"] is not None
    assert kept["final_runs"] == []
    assert set(load_results(tmp_path / "r")["protocol"]) == {"tuning"}


def test_choosing_alone_never_asks_for_test(shipbench: Shipbench, line: tuple[object, ...], tree: Path) -> None:
    without_test(tree)
    assert shipbench("tune", *line, "--grid", "lr=0.1,0.001", "--choose-only").code == 0


def test_the_data_of_a_tuning_run_have_no_test_split(tree: Path) -> None:
    spec = RunSpec(
        "linear",
        "dtd",
        overrides={"image_size": 64},
        backbone="test_vit",
        checkpoint="random",
        protocol="tuning",
        data=tree,
    )
    held = preparation.prepare(spec).task_data
    assert set(held.splits) == {"train800", "val200"}
    for leak in ("test", "train"):
        with pytest.raises(ShipbenchError, match=f"no {leak!r} split"):
            held[leak]  # type: ignore[index]


def test_a_loop_that_reaches_for_test_fails(
    shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = preparation.load_inputs

    def leaking(prepared: Any) -> Any:
        train, _ = honest(prepared)
        test, device = prepared.task_data["test"], prepared.compute.device
        return train, image_inputs(test, prepared.preprocessing, device, resident=False)

    monkeypatch.setattr(preparation, "load_inputs", leaking)
    outcome = shipbench("tune", *line, "--grid", "lr=0.1,0.001")
    assert outcome.code == 1
    assert "nothing chosen" in outcome.out
    frame = load_results(tmp_path / "r")
    assert set(frame["status"]) == {"failed"}
    assert frame["error"].str.contains("no 'test' split").all()
    assert load_tunings(tmp_path / "r")[0]["winner"] is None


def test_a_failed_point_is_shown_and_excluded(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    outcome = shipbench("tune", *line, "--grid", "lr=1e38,0.001", "--set", "optimizer=sgd", "--set", "epochs=3")
    assert outcome.code == 2
    assert "epochs is given twice" in outcome.err
    trimmed = [word for word in line if word not in ("--epochs", "1")]
    explode = ("--epochs", "3", "--set", "optimizer=sgd", "--set", "warmup_epochs=0")
    command = ("tune", *trimmed, "--grid", "lr=1e38,0.001", *explode)
    outcome = shipbench(*command)
    assert outcome.code == 1, outcome.err
    assert "1 of 2 settings excluded" in outcome.out
    assert "1 of 2 tuning runs failed; see" in outcome.err
    assert (load_results(tmp_path / "r")["protocol"] == "final").sum() == 1
    again = shipbench(*command)
    assert again.code == 1
    assert "1 of 2 tuning runs failed before and were not repeated; --retry-failed repeats them" in again.err
    (kept,) = load_tunings(tmp_path / "r")
    assert kept["winner_settings"] == {"lr": 0.001}
    assert kept["trials"][0]["mean_val_acc"] is None
    assert "epoch" in kept["trials"][0]["error"]


def test_one_setting_for_all_tasks(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    outcome = shipbench("tune", *line, "--tasks", "dtd,svhn", "--grid", "lr=0.1,0.001", "--common")
    assert outcome.code == 0, outcome.err
    (kept,) = load_tunings(tmp_path / "r")
    assert kept["tasks"] == ["dtd", "svhn"]
    assert len(kept["final_runs"]) == 2
    frame = load_results(tmp_path / "r").set_index("run_id")
    for trial in kept["trials"]:
        assert trial["mean_val_acc"] == pytest.approx(frame.loc[trial["runs"], "val_acc"].mean())


def test_two_names_of_the_same_images_share_their_runs(shipbench: Shipbench, cache: Path, tmp_path: Path) -> None:
    image_folder(tmp_path / "bugs", {"": (10, 10, 10)})
    tasks = f"folder:{tmp_path}/bugs,folder:{tmp_path}/./bugs"
    line = (*TINY, "--method", "linear", "--tasks", tasks, "--results", tmp_path / "r")
    outcome = shipbench("tune", *line, "--grid", "lr=0.1,0.001")
    assert outcome.code == 0, outcome.err
    frame = load_results(tmp_path / "r")
    assert sorted(frame["protocol"]) == ["final", "tuning", "tuning"]
    (kept,) = load_tunings(tmp_path / "r")
    assert kept["final_runs"] == list(frame.loc[frame["protocol"] == "final", "run_id"])


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path
) -> None:
    outcome = shipbench("tune", *line, "--grid", "small", "--seeds", "0-2", "--tuning-seeds", "0,1", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("to do: will run") == 6 * 2
    assert "tested once: 3 runs" in outcome.err
    assert not (tmp_path / "r").exists()


def test_a_config_file_holds_a_grid(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    (tmp_path / "tune.toml").write_text("[grid]\nlr = [0.1, 0.001]\nlinear.weight_decay = 0.0\n")
    outcome = shipbench("tune", *line, "--config", tmp_path / "tune.toml", "--dry-run")
    assert outcome.out.count("to do: will run") == 2, outcome.err
    (tmp_path / "tune.toml").write_text("grid = ['small', 'weight_decay=0,0.1']\n")
    outcome = shipbench("tune", *line, "--config", tmp_path / "tune.toml", "--dry-run")
    assert outcome.out.count("to do: will run") == 6 * 2, outcome.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "grid"),
        (("--grid", "lr"), "has no grid 'lr'"),
        (("--grid", "lr=high"), "lr='high' is not a number"),
        (("--grid", "lr=0.1", "--tuning-seeds", "x"), "--tuning-seeds 'x' is not a list of seeds"),
        (("--grid", "epochs=1,2"), "epochs is given twice"),
    ],
)
def test_wrong_input_is_refused(
    shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    outcome = shipbench("tune", *line, *options)
    assert outcome.code == 2
    assert words in outcome.err
    assert not (tmp_path / "r").exists()


def test_the_file_is_json_that_anything_can_read(
    shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path
) -> None:
    shipbench("tune", *line, "--grid", "lr=0.1", "--choose-only")
    (path,) = (tmp_path / "r" / "tuning").iterdir()
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["method"] == "linear"


def test_a_report_shows_tuned_runs_beside_those_of_the_recipe(
    shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path
) -> None:
    assert shipbench("tune", *line, "--grid", "lr=0.1,0.001").code == 0
    assert shipbench("run", *line).code == 0
    outcome = shipbench("report", "--results", tmp_path / "r", "--output", tmp_path / "out", "--format", "md,csv")
    assert outcome.code == 0, outcome.err
    page = next((tmp_path / "out").glob("*.md")).read_text()
    assert "**Protocol**" in page
    assert "| Linear probe (tuned)" in page
    chosen = "chosen on validation images after training on the other training images, then retrained on all of them."
    assert chosen in page
    assert "Also in the folder: 2 tuning runs" in page
    assert "agreement of predictions" in page
    assert "bootstrap over the test images" in page
