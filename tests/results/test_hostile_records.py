"""Records of other programs, damaged records and foreign files: read, or refused in one sentence."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shipbench.results.loading import load_results, load_rows
from shipbench.results.store import Store
from shipbench.runs.model_card import RECORDS
from shipbench.runs.publication import results_upload
from tests.conftest import Outcome, Shipbench
from tests.results.test_store import make_record


@pytest.fixture
def record(tmp_path: Path) -> Path:
    Store(tmp_path).write(make_record())
    return Store(tmp_path).path("runs", "a1")


def rewrite(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Write a record as another program would: without a seal."""
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err


WRONG: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no method": (lambda f: f.drop(columns="method"), "column method is missing"),
    "no status": (lambda f: f.drop(columns="status"), "column status is missing"),
    "a text for a number": (lambda f: f.assign(seed="zero"), "column seed is 'zero', expected int"),
    "a number for a text": (lambda f: f.assign(task=3), "column task is 3, expected str"),
    "a text for an accuracy": (lambda f: f.assign(final_test_acc="good"), "expected float"),
    "a list for a text": (lambda f: f.assign(device=[["cpu"]]), "expected str"),
    "settings that are not JSON": (lambda f: f.assign(config="{"), "is of another version"),
    "settings that are a list": (lambda f: f.assign(config="[1]"), "is not a table of settings"),
    "a status that is none": (lambda f: f.assign(status="perhaps"), "neither done nor failed"),
    "two rows": (lambda f: pd.concat([f, f]), "it has 2 rows, not one"),
    "no rows": (lambda f: f.iloc[:0], "it has 0 rows, not one"),
    "another run's record": (lambda f: f.assign(run_id="b2"), "it is the record of run b2"),
}


@pytest.mark.parametrize("name", list(WRONG))
@pytest.mark.parametrize("command", ["list", "report"])
def test_unusable_records_are_refused(
    shipbench: Shipbench, record: Path, tmp_path: Path, name: str, command: str
) -> None:
    change, words = WRONG[name]
    rewrite(record, change)
    line: tuple[Any, ...] = ("list", "runs") if command == "list" else ("report", "--output", tmp_path / "report")
    refused(shipbench(*line, "--results", tmp_path), "a1.parquet", words, "move it away")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + bytes(100) + b"PAR1"])
def test_files_that_are_not_parquet_are_refused(
    shipbench: Shipbench, record: Path, tmp_path: Path, content: bytes
) -> None:
    record.write_bytes(content)
    refused(shipbench("list", "runs", "--results", tmp_path), "a1.parquet cannot be read")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link that leads nowhere", "link to itself"])
def test_records_that_are_not_files_are_refused(shipbench: Shipbench, record: Path, tmp_path: Path, kind: str) -> None:
    other = record.with_name("b2.parquet")
    if kind == "folder":
        other.mkdir()
    elif kind == "pipe":
        os.mkfifo(other)
    else:
        other.symlink_to("b2.parquet" if kind == "link to itself" else "nowhere")
    refused(shipbench("list", "runs", "--results", tmp_path), "b2.parquet cannot be read (it is not a file)")


def test_a_changed_value_is_noticed(shipbench: Shipbench, record: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(record, partitioning=None)
    column = table.column_names.index("final_test_acc")
    pq.write_table(table.set_column(column, "final_test_acc", pa.array([0.99])), record)
    refused(shipbench("list", "runs", "--results", tmp_path), "its content is not what was written")


def test_a_record_with_additional_columns_is_read(record: Path, tmp_path: Path) -> None:
    rewrite(record, lambda frame: frame.assign(colour="red", **{"cfg.new": 1}))
    frame = load_results(tmp_path)
    assert list(frame["colour"]) == ["red"]
    assert Store(tmp_path).status("a1") == "done"


def test_a_record_that_lacks_columns_is_read(shipbench: Shipbench, record: Path, tmp_path: Path) -> None:
    rewrite(record, lambda frame: frame.drop(columns=["switches", "micro_batch", "train_seconds", "error"]))
    assert list(load_results(tmp_path)["switches"]) == [""]
    assert shipbench("list", "runs", "--results", tmp_path).code == 0


def test_a_record_of_another_program_needs_few_columns(shipbench: Shipbench, record: Path, tmp_path: Path) -> None:
    few = ["run_id", "status", "method", "task", "group", "suite", "seed", "final_test_acc"]
    rewrite(record, lambda frame: frame[few])
    assert list(load_results(tmp_path)["method"]) == [make_record().method]
    assert shipbench("list", "runs", "--results", tmp_path).code == 0
    done = shipbench("report", "--results", tmp_path, "--output", tmp_path / "report", "--format", "md")
    assert done.code == 0, done.err
    assert Store(tmp_path).path("runs", "a1").exists()


def test_control_characters_in_a_record_do_not_reach_the_terminal(
    shipbench: Shipbench, record: Path, tmp_path: Path
) -> None:
    rewrite(record, lambda frame: frame.assign(status="failed", method="\x1b]0;owned\x07", error="[red]one\ntwo :x:"))
    out = shipbench("list", "runs", "--results", tmp_path).out
    assert "[red]one two :x:" in out
    assert not {"\x1b", "\x07"} & set(out)


def test_foreign_files_are_ignored(shipbench: Shipbench, record: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "._a1.parquet").write_bytes(b"metadata that another system keeps beside a file")
    (tmp_path / "runs" / "notes.txt").write_text("mine")
    (tmp_path / "runs" / "a\nb").write_text("")
    (tmp_path / "other").mkdir()
    assert shipbench("list", "runs", "--results", tmp_path).code == 0
    assert len(load_results(tmp_path)) == 1


def test_a_setting_of_two_types_is_read(shipbench: Shipbench, record: Path, tmp_path: Path) -> None:
    """Two methods may mean different things by one name, as Adapter+ and FourierFT do by ``scaling``."""
    values: dict[str, Any] = {"b2": "all", "c3": True, "d4": "few"}
    for run_id, value in values.items():
        Store(tmp_path).write(make_record(run_id=run_id, method="linear", settings={"prompt_length": value}))
    rewrite(Store(tmp_path).path("runs", "d4"), lambda frame: frame.assign(git_commit="", shipbench_version=""))
    expected = {"a1": 10, **values}
    for rows in (load_rows(tmp_path), load_results(tmp_path).to_dict(orient="records")):
        read = {row["run_id"]: row["cfg.prompt_length"] for row in rows}
        assert [(run_id, type(value), value) for run_id, value in sorted(read.items())] == [
            (run_id, type(value), value) for run_id, value in expected.items()
        ]
    done = shipbench("report", "--results", tmp_path, "--output", tmp_path / "report", "--format", "md,csv")
    assert done.code == 0, done.err
    table = results_upload(Store(tmp_path), "someone/a").files[RECORDS]
    assert isinstance(table, bytes)
    assert set(pd.read_parquet(io.BytesIO(table))["cfg.prompt_length"]) == {"10", "all", "True", "few"}


def test_a_column_of_two_types_is_refused(shipbench: Shipbench, record: Path, tmp_path: Path) -> None:
    Store(tmp_path).write(make_record(run_id="b2", settings={"lr": "fast"}))
    refused(shipbench("list", "runs", "--results", tmp_path), "do not fit together")
