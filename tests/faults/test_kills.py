"""Processes that are killed, interrupted, or run side by side: every run is executed once, as if undisturbed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from shipbench.results.loading import load_results
from shipbench.results.plans import load_plans
from tests.conftest import Outcome
from tests.faults.damage import damage_bytes
from tests.faults.grids import Grid, differences, leftovers, written
from tests.faults.kills import Kills, kill_at_random

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX systems do")


@pytest.fixture
def grid(undisturbed: Grid, tmp_path: Path) -> Grid:
    return replace(undisturbed, results=tmp_path / "results")


def test_kills_at_random_moments_lose_nothing(undisturbed: Grid) -> None:
    whole = load_results(undisturbed.results)
    tally = kill_at_random(
        undisturbed, Kills(4, seed=7), longest=(whole["train_seconds"] + whole["eval_seconds"]).sum()
    )
    assert tally.lost == []
    assert tally.faults == 4


@pytest.mark.parametrize("kind", ["runs", "history", "predictions"])
def test_a_changed_byte_is_noticed(undisturbed: Grid, kind: str) -> None:
    tally = damage_bytes(undisturbed.results, kind, count=100, seed=3)
    assert tally.lost == []
    assert tally.refused > 10


@pytest.mark.parametrize(
    ("stop", "code", "jobs"), [(signal.SIGINT, 130, "1"), (signal.SIGTERM, 143, "1"), (signal.SIGTERM, 143, "2")]
)
def test_a_grid_that_is_interrupted(undisturbed: Grid, grid: Grid, stop: signal.Signals, code: int, jobs: str) -> None:
    endless = replace(grid, method="ship,vpt-deep", epochs=150, options=("--jobs", jobs))
    command = endless.start()
    command.wait_for("epoch 15/150")
    command.send(stop)
    began = time.monotonic()
    assert command.wait() == code
    assert time.monotonic() - began < 10
    said = grid.log.read_text()
    assert "the same command continues from there" in said
    assert "Traceback" not in said
    assert leftovers(grid.results) == [f"checkpoints/{path.name}" for path in _checkpoints(grid.results)]
    assert _checkpoints(grid.results)
    if jobs == "2":
        time.sleep(1)
        assert not _processes(command.process.pid)


@dataclass(frozen=True)
class StudyGrid(Grid):
    """The same runs as a study in one file."""

    @property
    def arguments(self) -> list[str]:
        """The command line; writes the study file."""
        file = self.results.with_suffix(".toml")
        methods = f'methods = "{self.method}"\ntasks = "dtd"\nbackbone = "test_vit"\ncheckpoint = "random"'
        settings = "set = { image_size = 64, drop_path = 0.2, batch_size = 4 }"
        file.write_text(f"[[run]]\n{methods}\nepochs = {self.epochs}\n{settings}\n", encoding="utf-8")
        return ["study", str(file), "--data", str(self.data), "--results", str(self.results), *self.options]


@pytest.mark.parametrize("kind", [Grid, StudyGrid])
def test_status_shows_a_grid_until_it_ends(
    undisturbed: Grid, tmp_path: Path, kind: type[Grid], shipbench: Callable[..., Outcome]
) -> None:
    grid = kind(undisturbed.data, undisturbed.cache, tmp_path / "results", "linear,vpt-deep", 8, ("--jobs", "1"))
    command, plans = grid.start(), grid.results / "plans"
    while not list(plans.glob("[!.]*.json")):
        assert command.process.is_alive(), grid.said
        time.sleep(0.002)
    # Stopped, so that the state cannot change while it is read.
    command.send(signal.SIGSTOP)
    (note,) = load_plans(grid.results)
    state = json.loads(shipbench("status", "--results", grid.results, "--json").out)
    command.send(signal.SIGCONT)
    assert command.wait() == 0, grid.said
    shown = [*state["runs_under_way"], *state["runs_to_do"]]
    assert state["done"] + len(shown) == len(note.runs) == 2
    assert {run["run_id"] for run in shown} <= {run.run_id for run in note.runs} == set(written(grid.results))
    assert {(run["engine"], run["title"].split(",")[1]) for run in shown} == {("local", " seed 0")}
    assert list(plans.iterdir()) == []
    assert shipbench("status", "--results", grid.results).out.startswith("2 done, 0 under way, 0 failed, 0 to do")


def _checkpoints(results: Path) -> list[Path]:
    return sorted((results / "checkpoints").iterdir())


def _processes(session: int) -> list[int]:
    """Return the living processes of a session."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            pids.append(int(stat.parent.name))
    return pids


def test_two_grids_on_one_folder_execute_each_run_once(undisturbed: Grid, grid: Grid) -> None:
    other = replace(grid, method="full,vpt-deep,ship,linear")
    both = [grid.start(), other.start()]
    assert [command.wait() for command in both] == [0, 0], grid.log.read_text()
    assert differences(grid.results, undisturbed.results) == []
    assert leftovers(grid.results) == []
    said = grid.log.read_text()
    for run_id in written(grid.results):
        begun = [line for line in said.splitlines() if line.startswith(run_id) and " on dtd, seed 0" in line]
        assert len([line for line in begun if "[" not in line]) == 1, said


def test_a_run_whose_worker_dies_is_repeated_by_another(undisturbed: Grid, grid: Grid) -> None:
    command = replace(grid, method="ship,vpt-deep", options=("--jobs", "2")).start()
    command.wait_for("loss")
    workers = [pid for pid in _processes(command.process.pid) if pid != command.process.pid and _is_worker(pid)]
    os.kill(workers[0], signal.SIGKILL)
    assert command.wait() == 0, grid.log.read_text()
    assert set(load_results(grid.results)["status"]) == {"done"}
    assert leftovers(grid.results) == []


def _is_worker(pid: int) -> bool:
    line = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"popen_loky" in line and b"resource_tracker" not in line
