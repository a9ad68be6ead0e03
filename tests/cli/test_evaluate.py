"""``shipbench evaluate``: finished runs on other images of the same classes, and on corrupted ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench import load_results
from shipbench.results.loading import load_predictions
from shipbench.results.sealed import is_sealed
from tests.conftest import Outcome
from tests.data.builders import vtab_tree
from tests.tasks.pictures import NAMES, image_folder, picture

Shipbench = Callable[..., Outcome]
SMALL = (
    *("--backbone", "vit_tiny_patch16_224", "--checkpoint", "random", "--device", "cpu", "--jobs", "1"),
    *("--set", "image_size=64", "--set", "batch_size=8", "--epochs", "2", "--precision", "fp32"),
)


@pytest.fixture
def bugs(shipbench: Shipbench, tmp_path: Path, cache: Path) -> Path:
    """A results folder ``r`` with a run of SHIP on ``folder:bugs``, beside the folder."""
    image_folder(tmp_path / "bugs", {"": (10, 10, 10)})
    outcome = shipbench(
        "run", "--method", "ship", "--tasks", f"folder:{tmp_path / 'bugs'}", *SMALL, "--results", tmp_path / "r"
    )
    assert outcome.code == 0, outcome.err
    return tmp_path


def only_run(folder: Path) -> str:
    frame = load_results(folder / "r")
    return str(frame.loc[frame["kind"] == "trained", "run_id"].item())


def evaluations(shipbench: Shipbench, folder: Path, *options: object) -> list[dict[str, object]]:
    outcome = shipbench("evaluate", only_run(folder), *options, "--results", folder / "r", "--device", "cpu", "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["evaluations"]


def test_a_run_on_its_own_test_images_predicts_what_it_predicted(shipbench: Shipbench, bugs: Path) -> None:
    (row,) = evaluations(shipbench, bugs, "--on", f"folder:{bugs / 'bugs'}")
    run_id = only_run(bugs)
    frame = load_results(bugs / "r").set_index("run_id")
    assert (row["kind"], row["parent_run"], row["n_test"], row["task"]) == ("evaluated", run_id, 6, "bugs")
    assert row["data_fingerprint"] == frame.loc[run_id, "data_fingerprint"]
    assert row["final_test_acc"] == frame.loc[run_id, "final_test_acc"]
    assert (row["best_test_acc"], row["train_seconds"], row["best_test_epoch"]) == (None, None, -1)
    ours, theirs = (load_predictions(bugs / "r", [key]) for key in (row["run_id"], run_id))
    for name in ("index", "label", "predicted"):
        assert ours[name].tolist() == theirs[name].tolist()
    assert ours["confidence"].tolist() == pytest.approx(theirs["confidence"].tolist(), abs=1e-5)
    assert is_sealed(bugs / "r" / "predictions" / f"{row['run_id']}.parquet")


def test_a_folder_without_a_split_gives_all_its_images_with_classes_matched_by_name(
    shipbench: Shipbench, bugs: Path
) -> None:
    # The file numbers the classes differently, so that a match by number would exchange ants and wasps.
    image_folder(bugs / "outdoors", {"": (3, 2, 4)})
    file = bugs / "outdoors.toml"
    file.write_text(
        '[suite]\nname = "away"\n[[task]]\nname = "outdoors"\nsource = "folder:outdoors"\n'
        'classes = ["wasp", "bee", "ant"]\n'
    )
    (row,) = evaluations(shipbench, bugs, "--on", file)
    assert (row["task"], row["n_test"], row["source"]) == ("outdoors", 9, "folder")
    labels = load_predictions(bugs / "r", [row["run_id"]])["label"]
    assert labels.value_counts().to_dict() == {0: 3, 1: 2, 2: 4}


def test_a_folder_with_a_test_split_gives_that_split_alone(shipbench: Shipbench, bugs: Path) -> None:
    image_folder(bugs / "split", {"train": (4, 4, 4), "test": (1, 2, 3)})
    image_folder(bugs / "single", {"": (1, 1, 1)})
    counts = [
        evaluations(shipbench, bugs, "--on", f"folder:{bugs / name}")[0]["n_test"] for name in ("split", "single")
    ]
    assert counts == [6, 3]


def test_other_classes_are_refused_by_name_and_nothing_is_written(shipbench: Shipbench, bugs: Path) -> None:
    image_folder(bugs / "birds", {"": (3, 3, 3)}, ("ant", "bee", "crow"))
    image_folder(bugs / "more", {"": (3, 3, 3, 3)}, (*NAMES, "moth"))
    before = sorted((bugs / "r").rglob("*"))
    for folder, words in (
        ("birds", "it lacks 'wasp' and has 'crow' besides; name images of the same classes"),
        ("more", "it has 'moth' besides"),
        ("nowhere", "nowhere"),
    ):
        outcome = shipbench("evaluate", only_run(bugs), "--on", f"folder:{bugs / folder}", "--results", bugs / "r")
        assert outcome.code == 2
        assert words in outcome.err
    assert sorted((bugs / "r").rglob("*")) == before


REFUSED = (
    ((), "name the images with --on, or a corruption of the run's test images with --corrupt"),
    (("--corrupt", "fog"), "unknown corruption 'fog'; choose from gaussian-noise, blur, jpeg, contrast"),
    (("--corrupt", "blurr"), "did you mean 'blur'?"),
    (("--corrupt", "blur", "--severity", "6"), "severity 6 is not one of 1 to 5"),
    (("--corrupt", "blur", "--severity", "x"), "--severity 'x' is not a list of severities"),
    (("--severity", "2"), "--severity needs --corrupt"),
    (("--corrupt", "blur"), "records hold no paths; name its source with --on"),
    (("--on", "demo"), "names 6 tasks; name one"),
    (("--on", "clevr-count"), "clevr-count has 8 classes, but run"),
)


def test_what_cannot_be_evaluated_is_refused_in_a_sentence(shipbench: Shipbench, bugs: Path) -> None:
    for options, words in REFUSED:
        outcome = shipbench("evaluate", only_run(bugs), *options, "--results", bugs / "r")
        assert outcome.code == 2, options
        assert words in outcome.err
    assert len(load_results(bugs / "r")) == 1


def test_corrupted_images_of_a_catalogued_task_are_resumed_listed_and_kept_out_of_tables(
    shipbench: Shipbench, tmp_path: Path, cache: Path
) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    shipbench("run", "--method", "linear", "--tasks", "dtd", "--data", data, *SMALL, "--results", tmp_path / "r")
    corrupt = ("--corrupt", "gaussian-noise,jpeg", "--severity", "1,5", "--data", data)
    rows = evaluations(shipbench, tmp_path, *corrupt)
    assert [(row["corruption"], row["severity"]) for row in rows] == [
        *(("gaussian-noise", 1), ("gaussian-noise", 5), ("jpeg", 1), ("jpeg", 5)),
    ]
    assert len({row["run_id"] for row in rows}) == 4
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "runs").iterdir()}
    assert evaluations(shipbench, tmp_path, *corrupt) == rows
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "runs").iterdir()} == stored
    assert not list((tmp_path / "r" / "claims").iterdir())

    listed = shipbench("list", "runs", "--results", tmp_path / "r").out
    assert "evaluated, jpeg 5" in listed
    again = shipbench(
        "run", "--method", "linear", "--tasks", "dtd", "--data", data, *SMALL, "--results", tmp_path / "r", "--dry-run"
    )
    assert "1 runs: 0 to do, 1 done" in again.err or "1 run: 0 to do, 1 done" in again.err
    for command in (("evaluate", rows[0]["run_id"], *corrupt), ("export", rows[0]["run_id"], tmp_path / "x")):
        outcome = shipbench(*command, "--results", tmp_path / "r")
        assert outcome.code == 2
        assert f"is an evaluation of run {only_run(tmp_path)}" in outcome.err


def test_another_copy_of_a_catalogued_task_needs_on(shipbench: Shipbench, tmp_path: Path, cache: Path) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    shipbench("run", "--method", "linear", "--tasks", "dtd", "--data", data, *SMALL, "--results", tmp_path / "r")
    other = shutil.copytree(data, tmp_path / "other")
    first = (other / "dtd" / "test.txt").read_text().split()[0]
    picture(5, 1).save(other / "dtd" / first, format="JPEG")
    command = ("evaluate", only_run(tmp_path), "--data", other, "--results", tmp_path / "r")
    outcome = shipbench(*command, "--corrupt", "blur", "--severity", 1)
    assert outcome.code == 2
    assert "the images of dtd are not those of run" in outcome.err
    outcome = shipbench(*command, "--on", "dtd", "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["evaluations"]
    assert row["n_test"] == len((data / "dtd" / "test.txt").read_text().splitlines())
