"""Several results folders, read as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipbench.errors import InputError
from shipbench.results.loading import load_features, load_history, load_predictions, load_results, load_rows
from shipbench.results.store import RunTables, Store
from shipbench.results.tunings import load_tunings, write_tuning
from tests.results.test_store import make_record


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Return two folders that share run b, failed in the first and done in the second, and run c, done in both."""
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    for store, runs in ((one, "abc"), (two, "bcd")):
        for run in runs:
            failed = (store, run) == (one, "b")
            status = {"status": "failed", "error": "out of memory"} if failed else {}
            label = 1 if store is one else 2
            tables = RunTables(
                history={"epoch": [0], "split": ["test"], "loss": [float(label)], "accuracy": [0.5]},
                predictions={} if failed else {"index": [0, 1], "label": [label, label]},
            )
            store.write(make_record(run_id=run, seed="abcd".index(run), **status), tables)
            store.write_features(run, {"index": [0], "f0": [float(label)]})
    return [one.root, two.root]


def test_a_run_that_several_folders_hold_is_the_first_that_is_done(folders: list[Path]) -> None:
    records = load_results(folders)
    assert list(zip(records["run_id"], records["status"], strict=True)) == [(run, "done") for run in "abcd"]
    assert [row["run_id"] for row in load_rows(folders)] == list("abcd")
    history = load_history(folders, "abcd")
    assert dict(zip(history["run_id"], history["loss"], strict=True)) == {"a": 1.0, "b": 2.0, "c": 1.0, "d": 2.0}
    predictions = load_predictions(folders, records["run_id"])
    assert list(predictions["label"]) == [1, 1, 2, 2, 1, 1, 2, 2]
    assert list(predictions["run_id"]) == list("aabbccdd")
    features = {run: load_features(folders, run) for run in "abcde"}
    assert [None if frame is None else frame["f0"][0] for frame in features.values()] == [1.0, 2.0, 1.0, 2.0, None]


def test_a_failed_run_is_the_first_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Store(tmp_path / name).write(make_record(status="failed", error=name))
    assert list(load_results([tmp_path / "two", tmp_path / "one"])["error"]) == ["two"]


def test_every_folder_has_to_exist(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there are no results in .*three: it has no 'runs' folder"):
        load_results([*folders, tmp_path / "three"])


def test_final_runs_of_all_folders_belong_to_a_tuning(tmp_path: Path) -> None:
    for name, run in (("one", "f0"), ("two", "f1")):
        document = {"format": "shipbench-tuning-1", "tuning_id": "t", "winner_settings": {}, "final_runs": [run]}
        write_tuning(tmp_path / name, document)
    assert [tuning["final_runs"] for tuning in load_tunings([tmp_path / "one", tmp_path / "two"])] == [["f0"], ["f1"]]


def test_what_is_no_folder_is_refused() -> None:
    with pytest.raises(InputError, match="results is None; give a folder"):
        load_results(None)  # type: ignore[arg-type]
