"""The store: atomic writes, every column kept, records with different columns read together."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from shipbench.errors import InputError
from shipbench.record import RunRecord
from shipbench.results.loading import load_history, load_predictions, load_results, load_rows
from shipbench.results.store import RunTables, Store
from shipbench.runtime.files import atomic_path


def make_record(**changes: object) -> RunRecord:
    record = RunRecord(
        run_id="a1",
        status="done",
        method="ship",
        task="dtd",
        group="Natural",
        suite="vtab-1k",
        seed=0,
        recipe="default",
        protocol="final",
        settings={"lr": 0.001, "prompt_length": 10, "mean": (0.5, 0.5, 0.5), "end_layer": None},
        backbone="vit",
        backbone_sha256="b" * 64,
        checkpoint="",
        image_size=224,
        data_fingerprint="d" * 64,
        image_format="png",
        num_classes=47,
        precision="fp32",
        device="cpu",
        final_test_acc=0.625,
    )
    return replace(record, **changes)


def test_a_record_is_read_back_as_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = make_record(settings={"lr": 0.001, "end_layer": None}, levels="[0, 3]")
    store.write(record, RunTables({"epoch": [0]}, {"index": [0, 1], "label": [1, 2]}))
    again = store.read("a1")
    assert again is not None
    assert again.to_row().keys() == record.to_row().keys()
    assert {k: v for k, v in again.to_row().items() if v == v} == {k: v for k, v in record.to_row().items() if v == v}
    assert list(load_history(tmp_path, ["a1"]).columns) == ["run_id", "epoch"]
    assert list(load_predictions(tmp_path, ["a1"])["label"]) == [1, 2]
    # A run that stands in two rows of a report is named twice.
    assert list(load_predictions(tmp_path, ["a1", "a1"])["label"]) == [1, 2]


def test_settings_are_flat_columns(tmp_path: Path) -> None:
    Store(tmp_path).write(make_record())
    row = load_results(tmp_path).iloc[0]
    assert (row["cfg.lr"], row["cfg.prompt_length"], row["cfg.mean"]) == (0.001, 10, "0.5,0.5,0.5")


def test_records_with_different_settings_are_read_together(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_record(run_id="a", settings={"lr": 0.1}))
    store.write(make_record(run_id="b", settings={"lr": 0.1, "prompt_length": 5}))
    frame = load_results(tmp_path).set_index("run_id")
    assert pd.isna(frame.loc["a", "cfg.prompt_length"])
    assert frame.loc["b", "cfg.prompt_length"] == 5


def test_a_later_record_replaces_a_failed_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.status("a1") is None
    store.write(make_record(status="failed", error="the loss is nan"))
    assert store.status("a1") == "failed"
    store.write(make_record())
    assert store.status("a1") == "done"
    assert len(load_results(tmp_path)) == 1


def test_a_record_that_is_written_again_within_a_second_is_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_record())
    path, times = store.path("runs", "a1"), []
    for nanoseconds in (10**18, 10**18 + 10**8):
        os.utime(path, ns=(nanoseconds, nanoseconds))
        times.append(store.written("a1"))
    assert len(set(times)) == 2


def test_temporary_files_of_other_runs_are_left_to_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with atomic_path(store.path("runs", "b2")) as kept, atomic_path(store.path("history", "a1")) as swept:
        store.sweep("a1")
        left = (kept.exists(), swept.exists())
        swept.touch()
    assert left == (True, False)


@pytest.mark.parametrize("below", ["", "birds"])
def test_a_folder_on_a_disk_that_is_not_mounted_is_refused_at_the_start(tmp_path: Path, below: str) -> None:
    (tmp_path / "results").symlink_to(tmp_path / "unplugged" / "results")
    with pytest.raises(InputError, match="cannot be written to: No such file or directory"):
        Store(tmp_path / "results" / below).check_writable()


def test_a_truncated_record_is_refused_and_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_record())
    path = store.path("runs", "a1")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"a1\.parquet cannot be read"):
        store.read("a1")


def test_records_are_sorted_as_tables_read_them(tmp_path: Path) -> None:
    order = [("linear", "svhn", 1, "e"), ("ship", "dtd", 0, "c"), ("ship", "dtd", 2, "a"), ("ship", "svhn", 0, "b")]
    for method, task, seed, run_id in reversed(order):
        Store(tmp_path).write(make_record(method=method, task=task, seed=seed, run_id=run_id))
    assert [row["run_id"] for row in load_rows(tmp_path)] == [run_id for *_, run_id in order]
    assert list(load_results(tmp_path)["run_id"]) == [run_id for *_, run_id in order]


def test_files_still_being_written_are_not_read(tmp_path: Path) -> None:
    Store(tmp_path).write(make_record())
    with atomic_path(tmp_path / "runs" / "b2.parquet") as temporary:
        temporary.write_bytes(b"PAR1")
        assert list(load_results(tmp_path)["run_id"]) == ["a1"]


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results"):
        load_results(tmp_path / "nothing")


def test_rows_are_those_of_the_frame(tmp_path: Path) -> None:
    records = [
        make_record(run_id="b2", seed=1, settings={"lr": 0.1}),
        make_record(run_id="a1", settings={"lr": 1, "end_layer": 3}, val_acc=0.5),
        make_record(run_id="c3", status="failed", error="no memory", final_test_acc=float("nan")),
    ]
    for record in records:
        Store(tmp_path).write(record)
    rows, frame = load_rows(tmp_path), load_results(tmp_path)
    assert [row["run_id"] for row in rows] == ["a1", "c3", "b2"]
    assert [list(row) for row in rows] == [list(frame.columns)] * 3
    expected = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    assert rows == expected


def test_every_sealed_record_is_read_and_parsed_once_without_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(5):
        Store(tmp_path).write(make_record(run_id=f"a{seed}", seed=seed))
    read: list[str] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: (read.append(self.stem), read_bytes(self))[1])
    monkeypatch.setattr("pyarrow.parquet.ParquetFile", None)
    for load in (load_rows, load_results):
        read.clear()
        assert len(load(tmp_path)) == 5
        assert sorted(read) == [f"a{seed}" for seed in range(5)]


def test_rows_of_other_programs_are_those_of_the_frame(tmp_path: Path) -> None:
    Store(tmp_path).write(make_record())
    pd.DataFrame([{"run_id": "x1", "method": "other", "task": "dtd", "status": "done"}]).to_parquet(
        tmp_path / "runs" / "x1.parquet"
    )
    rows = {row["run_id"]: row for row in load_rows(tmp_path)}
    assert (rows["a1"]["origin"], rows["x1"]["origin"]) == ("shipbench", "elsewhere")
    assert rows["x1"]["final_test_acc"] is None
