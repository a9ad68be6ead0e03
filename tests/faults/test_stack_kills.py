"""A stack that is killed or interrupted: its runs resume from their checkpoints, together or alone."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from shipbench.results.loading import load_history, load_predictions, load_results
from tests.conftest import TIMES
from tests.faults.campaign import make_grid
from tests.faults.grids import Grid, leftovers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX systems do")
STACKED = ("--seeds", "0-2", "--stack", "3")
ALONE = ("--seeds", "0-2", "--stack", "off")
EPOCHS = 12


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    folder = tmp_path_factory.mktemp("grid")
    grid = make_grid(folder, method="ship", epochs=EPOCHS, options=ALONE)
    assert grid.run() == 0, grid.log.read_text()
    return grid


def assert_same_results(results: Path, undisturbed: Path) -> None:
    one, two = (load_results(folder) for folder in (results, undisturbed))
    pd.testing.assert_frame_equal(
        one.drop(columns=[*TIMES, "stacked_runs"]), two.drop(columns=[*TIMES, "stacked_runs"]), rtol=1e-2
    )
    for load in (load_history, load_predictions):
        pd.testing.assert_frame_equal(load(results, one["run_id"]), load(undisturbed, one["run_id"]), rtol=1e-2)
    assert leftovers(results) == []


@pytest.mark.parametrize(
    ("first", "then", "stacked"), [(STACKED, STACKED, 3), (STACKED, ALONE, 1), (ALONE, STACKED, 3)]
)
def test_a_killed_grid_resumes_from_its_checkpoints(
    undisturbed: Grid, tmp_path: Path, first: tuple[str, ...], then: tuple[str, ...], stacked: int
) -> None:
    grid = replace(undisturbed, results=tmp_path / "results", options=first)
    command = grid.start()
    # Alone, the first run has finished by then and the second is running.
    command.wait_for("epoch 3/12" if first == STACKED else "[1/3]")
    _wait_for_checkpoints(grid.results, 3 if first == STACKED else 1)
    command.send(signal.SIGKILL)
    command.wait()
    assert replace(grid, options=then).run() == 0, grid.log.read_text()
    said = grid.log.read_text()
    assert "resumes after epoch" in said
    assert said.count("trained together with") == [first, then].count(STACKED)
    assert sorted(load_results(grid.results)["stacked_runs"])[-1] == stacked
    assert_same_results(grid.results, undisturbed.results)


def _wait_for_checkpoints(results: Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(list((results / "checkpoints").glob("[!.]*.safetensors"))) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_stack_that_is_interrupted(undisturbed: Grid, tmp_path: Path) -> None:
    grid = replace(undisturbed, results=tmp_path / "results", epochs=400, options=STACKED)
    command = grid.start()
    command.wait_for("trained together")
    _wait_for_checkpoints(grid.results, 3)
    command.send(signal.SIGINT)
    assert command.wait() == 130
    said = grid.log.read_text()
    assert "the same command continues from there" in said
    assert "Traceback" not in said
    checkpoints = sorted((grid.results / "checkpoints").iterdir())
    assert len(checkpoints) == 3
    assert leftovers(grid.results) == [f"checkpoints/{path.name}" for path in checkpoints]
