"""Sealed files: no byte can change unnoticed, and the row in the seal is the row in the columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from shipbench.errors import InputError
from shipbench.results.loading import load_predictions, load_results
from shipbench.results.sealed import read_row, read_table, write_parquet
from shipbench.results.store import RunTables, Store
from tests.results.test_store import make_record


@pytest.fixture
def record(tmp_path: Path) -> Path:
    Store(tmp_path).write(make_record())
    return Store(tmp_path).path("runs", "a1")


def test_no_byte_of_a_record_can_change_unnoticed(record: Path, tmp_path: Path) -> None:
    store, content = Store(tmp_path), record.read_bytes()
    seal = content.index(b"shipbench.seal")
    end = content.index(b"parquet-cpp", seal)
    # Every byte around the seal and the footer, and a sample of all others.
    checked = [*range(seal, seal + 20), *range(end - 120, len(content))]
    for place in sorted({*checked, *range(0, len(content), 101)}):
        record.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"a1\.parquet cannot be read"):
            store.status("a1")


@pytest.mark.parametrize("kept", [0, 4, 1000, -64, -8, -1])
def test_a_truncated_record_is_refused(record: Path, tmp_path: Path, kept: int) -> None:
    record.write_bytes(record.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"a1\.parquet cannot be read"):
        Store(tmp_path).status("a1")


def test_predictions_are_sealed_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_record(), RunTables(predictions={"index": [0, 1], "label": [7, 8]}))
    path = store.path("predictions", "a1")
    assert list(load_predictions(tmp_path, ["a1"])["label"]) == [7, 8]
    content = bytearray(path.read_bytes())
    content[content.index(b"shipbench.seal") // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="its content is not what was written"):
        load_predictions(tmp_path, ["a1"])


def test_a_table_is_read_from_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).write(make_record(), RunTables(predictions={"index": [0, 1], "label": [7, 8]}))
    paths, read = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: paths.append(path) or read(path))
    load_predictions(tmp_path, ["a1"])
    assert paths == [Store(tmp_path).path("predictions", "a1")]


def test_predictions_name_their_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("a1", "b2", "c3", "d4", "e5"):
        store.write(make_record(run_id=name), RunTables(predictions={"index": [0, 1], "label": [7, 8]}))
    # A file under another name, and files of another program.
    store.path("predictions", "b2").write_bytes(store.path("predictions", "a1").read_bytes())
    for name, columns in (("c3", {"run_id": ["c3"]}), ("d4", {}), ("e5", {"run_id": [None]})):
        store.remove("runs", name)
        pd.DataFrame({**columns, "index": [0], "label": [9]}).to_parquet(store.path("predictions", name))
    frame = load_predictions(tmp_path, ["a1", "b2", "c3", "d4", "e5"])
    assert frame["run_id"].dtype == "category"
    assert [None if pd.isna(run) else run for run in frame["run_id"]] == ["a1"] * 4 + ["c3", None, None]
    assert list(frame["label"]) == [7, 8, 7, 8, 9, 9, 9]
    assert list(frame) == ["run_id", "index", "label"]


def test_tables_are_read_as_they_were_written_and_take_little_space(tmp_path: Path) -> None:
    rows, generator = 4000, np.random.default_rng(0)
    predictions = {
        "index": np.arange(rows),
        "label": np.array([-(2**63), 2**63 - 1, 0, -1] * (rows // 4)),
        "predicted": generator.integers(0, 100, rows),
        "confidence": np.where(generator.random(rows) < 0.1, np.nan, generator.random(rows)),
    }
    store = Store(tmp_path)
    store.write(make_record(), RunTables(predictions=predictions))
    frame = load_predictions(tmp_path, ["a1"])
    assert list(frame["run_id"]) == ["a1"] * rows
    for name, values in predictions.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), values)
        assert frame[name].dtype == values.dtype
    plain = sum(values.nbytes for values in predictions.values())
    assert store.path("predictions", "a1").stat().st_size < plain / 3


def test_a_sealed_table_without_the_repeated_column_is_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"index": [0, 1]})
    assert read_table(tmp_path / "a.parquet", repeated="run_id").table.to_pydict() == {"index": [0, 1]}


def test_the_row_in_the_seal_is_the_row_in_the_columns(record: Path) -> None:
    assert read_row(record).values == read_table(record).table.to_pylist()[0]
    assert json.loads(pd.read_parquet(record).to_json(orient="records"))[0].keys() == read_row(record).values.keys()


def test_the_status_is_read_without_parsing_columns(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(pq, "ParquetFile")
    assert Store(tmp_path).status("a1") == "done"


@pytest.mark.parametrize("error", ["\nshipbench.sha256 of this file: " + "0" * 64, "a\n{}\nb", "naïve\0"])
def test_texts_that_look_like_a_seal_are_kept(tmp_path: Path, error: str) -> None:
    store = Store(tmp_path)
    store.write(make_record(status="failed", error=error))
    again = store.read("a1")
    assert again is not None
    assert again.error == error
    assert list(load_results(tmp_path)["error"]) == [error]


def test_a_renamed_record_is_refused(record: Path, tmp_path: Path) -> None:
    record.rename(record.with_name("b2.parquet"))
    with pytest.raises(InputError, match="it is the record of run a1"):
        Store(tmp_path).status("b2")


def test_a_record_without_a_seal_is_read_beside_sealed_ones(record: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(record, partitioning=None).replace_schema_metadata(None), record)
    store = Store(tmp_path)
    store.write(make_record(run_id="b2", seed=1))
    assert store.status("a1") == store.status("b2") == "done"
    frame = load_results(tmp_path)
    assert list(frame["run_id"]) == ["a1", "b2"]
    assert list(frame["cfg.lr"]) == [0.001, 0.001]


def test_a_seal_without_its_hash_is_refused(record: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(record, partitioning=None).replace_schema_metadata({"shipbench.seal": "{}"}), record)
    with pytest.raises(InputError, match="its content is not what was written"):
        Store(tmp_path).status("a1")
