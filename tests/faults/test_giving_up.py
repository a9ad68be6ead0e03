"""A run that killed its processes again and again is recorded as failed, unless somebody else sees to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shipbench import RunSpec
from shipbench.cli.progress import PlainReporter
from shipbench.engine.attempt import give_up
from shipbench.engine.supervisor import _Grid
from shipbench.planning.plan import PlannedRun, State
from shipbench.results import claims
from shipbench.results.store import Store
from shipbench.training.history import EpochReport

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


def grid_of(root: Path, *, apart: bool, count: int = 2) -> _Grid:
    """A grid whose runs have begun and have no process any more."""
    grid = _Grid([replace(RUN, run_id=str(index)) for index in range(count)], root, PlainReporter(count), apart=apart)
    for run_id in grid.runs:
        grid.hear(run_id, "started", None)
    return grid


def ready(grid: _Grid) -> list[str]:
    return [run.run_id for run in grid._ready(list(grid.runs.values()))]


def test_runs_that_died_beside_others_are_tried_one_at_a_time(tmp_path: Path) -> None:
    assert ready(grid_of(tmp_path, apart=False)) == ["0"]


def test_runs_of_a_cluster_are_tried_together_again(tmp_path: Path) -> None:
    assert ready(grid_of(tmp_path, apart=True)) == ["0", "1"]


@pytest.mark.parametrize(("epochs", "given_up"), [((0, 1, 2, 3), False), ((0, 0, 0, 0), True), ((), True)])
def test_a_run_that_comes_further_each_time_is_not_given_up(
    tmp_path: Path, epochs: tuple[int, ...], given_up: bool
) -> None:
    grid = grid_of(tmp_path, apart=True, count=1)
    for deaths in range(4):
        if epochs:
            grid.hear("0", "epoch", EpochReport(epochs[deaths], 9, 1.0, 0.1, 1.0, images=10))
        grid.hear("0", "started", None)
    assert ready(grid) == ([] if given_up else ["0"])


def test_a_run_that_was_given_to_another_process_has_not_died(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, apart=False)
    grid.hear("0", "lost", None)
    grid.hear("1", "lost", None)
    assert ready(grid) == ["0", "1"]
