"""A run that killed its processes again and again is recorded as failed, unless somebody else sees to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipbench import RunSpec, claims
from shipbench.attempt import give_up
from shipbench.grid import PlannedRun, State
from shipbench.store import Store

RUN = PlannedRun(RunSpec("linear", "demo-tiny"), "0123456789abcdef", State.TO_DO)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A results folder in which a process died while it wrote."""
    for kind in ("runs", "checkpoints"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f".{RUN.run_id}.parquet.x1y2.part").write_bytes(b"half")
    (tmp_path / "checkpoints" / f"{RUN.run_id}.safetensors").write_bytes(b"old")
    return Store(tmp_path)


def test_a_run_that_is_given_up_leaves_a_failed_record_and_nothing_else(store: Store) -> None:
    give_up(RUN, store.root, "its process died 3 times")
    record = store.read(RUN.run_id)
    assert record is not None
    assert (record.status, record.error) == ("failed", "its process died 3 times")
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == [f"{RUN.run_id}.parquet"]


def test_a_run_that_somebody_has_is_not_given_up(store: Store) -> None:
    claim = claims.take(store.root, RUN.run_id)
    assert claim is not None
    with claim:
        give_up(RUN, store.root, "its process died 3 times")
    assert store.read(RUN.run_id) is None


def test_a_record_that_came_meanwhile_is_kept(store: Store) -> None:
    give_up(RUN, store.root, "the first")
    give_up(RUN, store.root, "the second")
    record = store.read(RUN.run_id)
    assert record is not None
    assert record.error == "the first"
