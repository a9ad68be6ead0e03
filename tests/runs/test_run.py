"""Runs beside other processes: ``shipbench.run`` in Python, and what an attempt stores when it is not alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shipbench import RunSpec, run
from shipbench.engine import attempt
from shipbench.errors import InputError
from shipbench.planning.plan import PlannedRun, State
from shipbench.record import RunRecord
from shipbench.results import claims
from shipbench.results.claims import ClaimLostError
from shipbench.results.store import Store
from shipbench.runs import run as runs_module
from tests.results.test_store import make_record

SPEC = RunSpec("linear", "dtd")
Train = Callable[..., RunRecord]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A results folder for run a1, which needs no preparation and writes what it was given when it is trained."""
    store = Store(tmp_path / "r")

    def train(prepared: Any, into: Store, *_: Any, confirm: Callable[[], None], **__: Any) -> RunRecord:
        confirm()
        into.write(make_record(host="here"))
        return make_record(host="here")

    monkeypatch.setattr(runs_module, "prepare", lambda spec: SimpleNamespace(run_id="a1"))
    monkeypatch.setattr(runs_module, "carry_out", train)
    return store


def other_process(store: Store, monkeypatch: pytest.MonkeyPatch, status: str | None) -> None:
    """Let another process have the run, which ends, and may leave a record, as soon as it is waited for."""
    claim = claims.take(store.root, "a1")
    assert claim is not None

    def end(_: float) -> None:
        if status:
            store.write(make_record(host="there", status=status))
        claims.revoke(store.root, "a1")

    monkeypatch.setattr(claims.time, "sleep", end)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("status", "host"), [("done", "there"), ("failed", "here"), (None, "here")])
def test_a_run_that_another_process_does_is_waited_for(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    force: bool,
    status: str | None,
    host: str,
) -> None:
    other_process(store, monkeypatch, status)
    assert run(SPEC, results=store.root, force=force).host == host
    assert "run a1 is being done by another process" in capsys.readouterr().err
    kept = store.read("a1")
    assert kept is not None
    assert kept.host == host
    assert claims.holder(store.root, "a1") is None


def test_a_run_that_is_done_is_repeated_by_force_alone(store: Store) -> None:
    store.write(make_record(host="before"))
    assert run(SPEC, results=store.root).host == "before"
    assert run(SPEC, results=store.root, force=True).host == "here"


def test_a_run_that_was_taken_away_is_not_stored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any, confirm: Callable[[], None], **__: Any) -> RunRecord:
        claims.revoke(store.root, "a1")
        confirm()
        raise AssertionError

    monkeypatch.setattr(runs_module, "carry_out", train)
    with pytest.raises(ClaimLostError):
        run(SPEC, results=store.root)


def test_a_folder_that_cannot_be_used_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "prepare", lambda spec: pytest.fail("was prepared"))
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        run(SPEC, results=tmp_path / "taken")


def attempted(store: Store) -> list[str]:
    """Attempt run a1 and return what was told of it."""
    events: list[str] = []
    attempt.attempt(PlannedRun(SPEC, "a1", State.TO_DO), store.root, lambda kind, _: events.append(kind))
    return events


def test_a_failure_replaces_no_record_of_another_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: PlannedRun) -> None:
        store.write(make_record(host="there"))
        raise ValueError("diverged")

    monkeypatch.setattr(attempt, "prepare_planned", fail)
    assert attempted(store) == ["started", "lost"]
    kept = store.read("a1")
    assert kept is not None
    assert (kept.status, kept.host) == ("done", "there")


def test_a_failure_of_a_run_that_was_taken_away_is_not_stored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: PlannedRun) -> None:
        claims.revoke(store.root, "a1")
        raise ValueError("diverged")

    monkeypatch.setattr(attempt, "prepare_planned", fail)
    assert attempted(store) == ["started", "lost"]
    assert store.read("a1") is None


def test_debugging_shows_the_traceback_and_changes_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: PlannedRun) -> None:
        raise ValueError("diverged")

    monkeypatch.setenv("SHIPBENCH_DEBUG", "1")
    monkeypatch.setattr(attempt, "prepare_planned", fail)
    assert attempted(store) == ["started", "finished"]
    assert store.status("a1") == "failed"
    assert "ValueError: diverged" in capsys.readouterr().err


def test_a_checkpoint_beside_a_failed_record_is_of_a_later_attempt(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a failing run is killed: its checkpoint goes before its record comes."""
    checkpoint = store.path("checkpoints", "a1")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    monkeypatch.setattr(Store, "write", lambda *_: pytest.fail("killed") if not checkpoint.exists() else None)
    with pytest.raises(pytest.fail.Exception, match="killed"):
        attempt.give_up(PlannedRun(SPEC, "a1", State.TO_DO), store.root, "its process died")
