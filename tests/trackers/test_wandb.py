"""Weights & Biases with its library: runs offline and online, and what is refused before anything runs."""

from __future__ import annotations

import json
import shlex
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from unittest.mock import Mock

import pytest

from shipbench.trackers.interface import TrackerOptions
from shipbench.trackers.wandb import WandbTracker
from tests.trackers.builders import CURVE, RUN, failed_from_the_start, interrupted_then_finished

_FILE_HEADER, _CHUNK_HEADER, _BLOCK = 7, 7, 32768
_FULL, _LAST = 1, 4


@pytest.fixture(autouse=True)
def wandb() -> Any:
    """The library, which takes a second to import."""
    return pytest.importorskip("wandb", reason="the extra shipbench[wandb] is not installed")


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))
    interrupted_then_finished(partial(WandbTracker, TrackerOptions(tmp_path)), tmp_path)
    files = wandb_sessions(tmp_path / "wandb")
    assert len(files) == 2
    curve = [(int(row["epoch"]), row["test_acc"]) for file in files for row in wandb_history(file) if "test_acc" in row]
    assert curve == [CURVE[0], CURVE[1], CURVE[1], CURVE[2]]
    assert any("figures/" in key for row in wandb_history(files[1]) for key in row)
    assert wandb_artifacts(files[1]) == ["record-a1"]
    interrupted = list(wandb_records(files[0]))
    assert [record.exit.exit_code for record in interrupted if record.WhichOneof("record_type") == "exit"] == [130]
    assert "preempting" in {record.WhichOneof("record_type") for record in interrupted}
    assert wandb_sync(WandbTracker(TrackerOptions(tmp_path)).where, tmp_path).exit_code == 0
    failed_from_the_start(WandbTracker(TrackerOptions(tmp_path / "failed")), tmp_path)
    (failed,) = wandb_sessions(tmp_path / "failed" / "wandb")
    records = list(wandb_records(failed))
    assert [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"] == [1]
    notes = [record.run.notes for record in records if record.WhichOneof("record_type") == "run"]
    assert notes[-1] == "11 levels\n12 levels"
    summary = {item.key: json.loads(item.value_json) for record in records for item in record.summary.update}
    assert (summary["status"], summary["error"]) == ("failed", "out of memory")


def test_wandb_online_continues_the_run_of_an_id_unless_it_is_fresh(
    wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    handle = Mock(project_url="https://wandb.test/it")

    def init(**options: Any) -> Any:
        calls.append(options)
        return handle

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    for mode, place in (
        ("online", "https://wandb.test/it"),
        ("disabled", "the mode 'disabled' sends and keeps nothing"),
    ):
        monkeypatch.setenv("WANDB_MODE", mode)
        tracker = WandbTracker(TrackerOptions(tmp_path))
        for fresh in (False, True):
            tracker.open(replace(RUN, fresh=fresh))
        assert tracker.where == place
    # Curves are drawn over epochs.
    assert mock.call("*", step_metric="epoch") in handle.define_metric.call_args_list
    assert [(call["id"], call["resume"]) for call in calls] == [("a1", "allow"), *[("a1", None)] * 3]
    assert [call["mode"] for call in calls] == ["online", "online", "disabled", "disabled"]
    for call in calls:
        assert (call["project"], call["name"], call["dir"]) == ("mine", RUN.title, tmp_path)
        assert call["config"] == RUN.config


@pytest.mark.parametrize(
    ("mode", "where"),
    [
        ("offline", "wandb sync {folder}/r/wandb/offline-*"),
        ("disabled", "the mode 'disabled' sends and keeps nothing"),
    ],
)
def test_a_mode_in_a_settings_file_needs_no_account(
    wandb: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    mode: str,
    where: str,
) -> None:
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    # The library keeps what it has read before.
    wandb.teardown()
    # What "wandb offline" and "wandb disabled" write.
    Path("wandb").mkdir()
    Path("wandb", "settings").write_text(f"[default]\nmode = {mode}\n")
    tracker = WandbTracker(TrackerOptions(tmp_path / "r"))
    tracker.check()
    wandb.teardown()
    assert tracker.where == where.format(folder=tmp_path)
    assert "Unable to verify login" not in capfd.readouterr().err


def wandb_sessions(folder: Path) -> list[Path]:
    """Return the files of the sessions of a run in order, once W&B has written their ends.

    Their folders are named by the second in which they start, and by a number where two have the same.
    """
    files = sorted(folder.glob("offline-run-*-a1*/run-a1.wandb"))
    deadline = time.monotonic() + 60
    while not all("exit" in {record.WhichOneof("record_type") for record in wandb_records(file)} for file in files):
        assert time.monotonic() < deadline, "W&B did not write the end of a session"
        time.sleep(0.05)
    return files


def wandb_records(file: Path) -> Iterator[Any]:
    """Yield the records of a file that wandb wrote offline: protocol buffers in the blocks of a LevelDB log."""
    from wandb.proto import wandb_internal_pb2

    content, position, parts = file.read_bytes(), _FILE_HEADER, b""
    while position + _CHUNK_HEADER <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _CHUNK_HEADER:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        if position + _CHUNK_HEADER + length > len(content):
            # It is being written.
            return
        parts += content[position + _CHUNK_HEADER : position + _CHUNK_HEADER + length]
        position += _CHUNK_HEADER + length
        if kind in (_FULL, _LAST):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def wandb_sync(line: str, folder: Path) -> Any:
    """Execute a line that begins with "wandb sync" up to the point at which it would send the runs."""
    from click.testing import CliRunner
    from wandb.cli.cli import cli

    words = shlex.split(line)
    assert words[:2] == ["wandb", "sync"]
    paths = [str(path) for word in words[2:] for path in Path("/").glob(word.lstrip("/"))]
    assert len(paths) == 2
    return CliRunner().invoke(cli, ["sync", *paths, "--dry-run"])


def wandb_history(file: Path) -> list[dict[str, Any]]:
    rows = [record.history for record in wandb_records(file) if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item} for row in rows]


def wandb_artifacts(file: Path) -> list[str]:
    requests = [record.request for record in wandb_records(file) if record.WhichOneof("record_type") == "request"]
    logged = [request.log_artifact.artifact for request in requests if request.HasField("log_artifact")]
    direct = [record.artifact for record in wandb_records(file) if record.WhichOneof("record_type") == "artifact"]
    return [artifact.name for artifact in (*logged, *direct)]
