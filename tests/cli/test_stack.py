"""``--stack``: runs trained together leave the records of runs trained alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pandas as pd
import pytest
import torch

from shipbench import load_results
from shipbench.engine import stacked as stacked_attempt
from shipbench.planning.stacks import Stack
from shipbench.results.loading import load_history, load_predictions
from shipbench.results.store import Store
from tests.conftest import TIMES, Shipbench
from tests.data.builders import vtab_tree
from tests.faults.grids import leftovers

TINY = ("--backbone", "test_vit", "--checkpoint", "random", "--tasks", "dtd", "--epochs", "3")
# In bf16, which auto chooses on some processors, rounding errors are no longer small.
EXACTLY = ("--precision", "fp32")
SETTINGS = ("--set", "image_size=64", "--set", "drop_path=0.2", "--set", "batch_size=4", "--set", "eval_every=1")
# Columns in which a run of a stack may differ from the same run alone by more than rounding.
FREE = [*TIMES, "stacked_runs"]


@pytest.fixture
def line(tmp_path: Path, cache: Path) -> Callable[..., tuple[object, ...]]:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))

    def make(results: str, *options: object) -> tuple[object, ...]:
        return (*TINY, *EXACTLY, *SETTINGS, "--data", data, "--results", tmp_path / results, *options)

    return make


def assert_same_records(a: Path, b: Path) -> None:
    one, two = load_results(a), load_results(b)
    # A library may choose another algorithm for a matrix product of another size.
    pd.testing.assert_frame_equal(one.drop(columns=FREE), two.drop(columns=FREE), rtol=1e-3)
    pd.testing.assert_series_equal(one["final_test_acc"], two["final_test_acc"])
    pd.testing.assert_frame_equal(*(load_history(root, one["run_id"]) for root in (a, b)), rtol=1e-3)
    pd.testing.assert_frame_equal(*(load_predictions(root, one["run_id"]) for root in (a, b)), rtol=1e-3)
    assert all(Store(b).path("weights", run_id).exists() for run_id in one["run_id"])


def test_a_stacked_grid_leaves_the_records_of_separate_runs(
    shipbench: Shipbench, line: Callable[..., tuple[object, ...]], tmp_path: Path
) -> None:
    grid = ("--method", "ship,vpt-shallow,vpt-deep,linear", "--seeds", "0-2", "--set", "vpt-deep.dropout=0.2")
    assert shipbench("run", *line("alone", *grid, "--stack", "off")).code == 0
    outcome = shipbench("run", *line("together", *grid, "--stack", "3"))
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("trained together with 2 other runs") == 3
    assert_same_records(tmp_path / "alone", tmp_path / "together")
    frame = load_results(tmp_path / "together")
    assert set(frame.groupby("method")["stacked_runs"].unique().map(tuple).items()) == {
        ("linear", (1,)),
        ("ship", (3,)),
        ("vpt-deep", (3,)),
        ("vpt-shallow", (3,)),
    }
    assert leftovers(tmp_path / "together") == []


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread: two workers divide the threads of this process, and each of them gets one as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread", "forked_workers")
def test_workers_execute_stacks(shipbench: Shipbench, line: Callable[..., tuple[object, ...]], tmp_path: Path) -> None:
    grid = ("--method", "ship", "--seeds", "0-3")
    assert shipbench("run", *line("alone", *grid)).code == 0
    outcome = shipbench("run", *line("together", *grid, "--stack", "4", "--jobs", "2"))
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("trained together with 1 other run,") == 2
    assert_same_records(tmp_path / "alone", tmp_path / "together")


def test_one_run_that_diverges_fails_alone(
    shipbench: Shipbench, line: Callable[..., tuple[object, ...]], tmp_path: Path
) -> None:
    grid = ("--method", "vpt-deep", "--set", "optimizer=sgd", "--grid", "lr=0.01,1e30,0.02", "--choose-only")
    assert shipbench("tune", *line("alone", *grid)).code == 1
    outcome = shipbench("tune", *line("together", *grid, "--stack", "8"))
    assert outcome.code == 1, outcome.err
    assert "trained together with 2 other runs" in outcome.err
    one, two = (load_results(tmp_path / name) for name in ("alone", "together"))
    for column in ("run_id", "status", "error", "val_acc"):
        pd.testing.assert_series_equal(one[column], two[column])
    assert sorted(two["status"]) == ["done", "done", "failed"]


def test_without_enough_memory_runs_are_executed_one_by_one(
    shipbench: Shipbench,
    line: Callable[..., tuple[object, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_much(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stacked_attempt, "fit_stack", too_much)
    outcome = shipbench("run", *line("r", "--method", "ship", "--seeds", "0-1", "--stack", "2"))
    assert outcome.code == 0, outcome.err
    assert "2 runs do not fit on the device together; executing them one by one" in outcome.err
    assert outcome.err.count(" ship on dtd, seed 0\n") == 1
    assert list(load_results(tmp_path / "r")["stacked_runs"]) == [1, 1]


@pytest.mark.parametrize(
    ("device", "memory", "sizes"), [("cuda", 80e9, [4, 4]), ("cuda", 1.0, [1] * 8), ("cpu", 80e9, [1] * 8)]
)
def test_auto_stacks_by_device_and_memory(
    shipbench: Shipbench,
    line: Callable[..., tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    memory: float,
    sizes: list[int],
) -> None:
    stacks: list[Stack] = []

    def execute(executed: Sequence[Stack], *_: object) -> NoReturn:
        stacks.extend(executed)
        raise KeyboardInterrupt

    monkeypatch.setattr("shipbench.engine.executors.inline.execute_inline", execute)
    monkeypatch.setattr("shipbench.engine.executors.local.resolve_device", lambda _: torch.device(device))
    monkeypatch.setattr("shipbench.engine.executors.local.device_memory", lambda _: memory)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert (
        shipbench("run", *line("r", "--method", "ship", "--seeds", "0-7", "--device", "cpu", "--jobs", "1")).code == 130
    )
    assert [len(stack.runs) for stack in stacks] == sizes


def test_a_run_that_is_repeated_keeps_its_stack_and_its_record(
    shipbench: Shipbench, line: Callable[..., tuple[object, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a CPU, random masks change the shapes of a pass.
    grid = line("r", "--method", "ship", "--seeds", "0-2", "--stack", "3", "--set", "ship.drop_path=0.0")
    assert shipbench("run", *grid).code == 0
    undisturbed = load_results(tmp_path / "r")
    Store(tmp_path / "r").remove("runs", undisturbed["run_id"][1])
    # A clock that goes wild must not change what is computed.
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks) ** 3))
    outcome = shipbench("run", *grid)
    assert outcome.code == 0, outcome.err
    assert "trained together with 2 other runs" in outcome.err
    assert "2 of them are placeholders that keep the results the same" in outcome.err
    pd.testing.assert_frame_equal(load_results(tmp_path / "r").drop(columns=TIMES), undisturbed.drop(columns=TIMES))


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", ""])
def test_an_invalid_stack_is_refused(
    shipbench: Shipbench, line: Callable[..., tuple[object, ...]], tmp_path: Path, text: str
) -> None:
    outcome = shipbench("run", *line("r", "--method", "ship", "--stack", text))
    assert outcome.code == 2
    assert "--stack" in outcome.err
    assert not (tmp_path / "r").exists()


def test_a_cluster_does_not_stack(
    shipbench: Shipbench, line: Callable[..., tuple[object, ...]], tmp_path: Path
) -> None:
    dask = ("--engine", "dask", "--scheduler", "tcp://127.0.0.1:1")
    outcome = shipbench("run", *line("r", "--method", "ship", "--stack", "3", *dask))
    assert outcome.code == 2
    assert "--stack N and --engine dask" in outcome.err
