"""Ctrl-C in commands other than grids: one sentence, nothing half-written, and the same command finishes the work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench.results.loading import load_results
from shipbench.results.store import Store
from shipbench.results.tunings import load_tunings
from tests.data.builders import vtab_tree
from tests.faults.grids import Grid, leftovers, make_grid
from tests.faults.strikes import Ended, Strike, execute
from tests.hub import Hub, serve
from tests.results.foreign.trees import vpt_log, write

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals as POSIX systems do")

Execute = Callable[..., Ended]
CONTINUES = "stopped; finished {} are kept in {}, and the same command continues from there"
STARTS_AGAIN = "stopped; the same command starts again"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of all commands."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Grid:
    """A run of SHIP, which ``finished`` copies."""
    grid = make_grid(tmp_path_factory.mktemp("interrupted"), cache=cache, method="ship", epochs=1)
    assert grid.run() == 0, grid.said
    return grid


@pytest.fixture
def finished(trained: Grid, tmp_path: Path) -> Path:
    """A results folder with one run."""
    return shutil.copytree(trained.results, tmp_path / "r")


@pytest.fixture
def command(cache: Path, tmp_path: Path) -> Execute:
    """Execute a command, which a strike may stop; it prints one sentence if it stops, and no traceback."""

    def call(*arguments: object, strike: Strike | None = None) -> Ended:
        ended = execute(arguments, {"SHIPBENCH_CACHE": str(cache)}, tmp_path / "log", strike)
        assert "Traceback" not in ended.said
        assert len(ended.stopped) == (ended.code == 130), ended.said
        return ended

    return call


def _run_of(results: Path) -> str:
    return str(load_results(results).query("kind == 'trained'")["run_id"].item())


def test_evaluate(trained: Grid, finished: Path, command: Execute) -> None:
    options = ("--corrupt", "jpeg", "--severity", "1-2", "--data", trained.data, "--results", finished)
    line = ("evaluate", _run_of(finished), *options)
    # The predictions of the second evaluation are stored, its record is not.
    ended = command(*line, strike=Strike("shipbench.results.store:write_parquet", 3))
    assert ended.code == 130, ended.said
    assert ended.stopped == [CONTINUES.format("evaluations", finished)]
    assert len(list((finished / "predictions").iterdir())) == 3
    assert list(load_results(finished).query("kind == 'evaluated'")["severity"]) == [1]
    assert leftovers(finished) == []
    ended = command(*line)
    assert ended.code == 0, ended.said
    assert set(load_results(finished).query("kind == 'evaluated'")["severity"]) == {1, 2}


def test_explain(trained: Grid, finished: Path, command: Execute, tmp_path: Path) -> None:
    line = ("explain", _run_of(finished), "--data", trained.data, "--results", finished, "--output", tmp_path / "e")
    ended = command(*line, strike=Strike("shipbench.explaining.explain:write_figure"))
    assert ended.code == 130, ended.said
    assert ended.stopped == [STARTS_AGAIN]
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["montage.png"]
    ended = command(*line)
    assert ended.code == 0, ended.said
    assert {"montage.png", "prompts.png", "explanation.json"} < {path.name for path in (tmp_path / "e").iterdir()}


def test_features(trained: Grid, finished: Path, command: Execute) -> None:
    run_id = _run_of(finished)
    line = ("explain", run_id, "--features", "--data", trained.data, "--results", finished)
    ended = command(*line, strike=Strike("shipbench.explaining.explain:final_features"))
    assert ended.code == 130, ended.said
    assert ended.stopped == [STARTS_AGAIN]
    assert not (finished / "features").exists()
    ended = command(*line)
    assert ended.code == 0, ended.said
    assert Store(finished).path("features", run_id).exists()


def test_import(command: Execute, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "vpt" / name / "logs.txt", vpt_log([50.0, 60.0], epochs=2, SEED=str(ord(name))))
    line, results = ("import", "vpt", tmp_path / "vpt", "--results", tmp_path / "i"), tmp_path / "i"
    # The history of the second result is stored, its record is not.
    ended = command(*line, strike=Strike("shipbench.results.store:write_parquet", 3))
    assert ended.code == 130, ended.said
    kept = f"stopped; results that are stored are kept in {results}, and the same command imports the others"
    assert ended.stopped == [kept]
    assert len(list((results / "history").iterdir())) == 2
    assert len(load_results(results)) == 1
    assert leftovers(results) == []
    ended = command(*line)
    assert ended.code == 0, ended.said
    assert "1 imported, 1 already imported" in ended.said
    assert len(load_results(results)) == 2


@pytest.mark.parametrize(
    ("strike", "trials", "chosen", "final"),
    [
        (Strike("shipbench.runs.session:store_run"), 1, 0, 0),
        (Strike("shipbench.runs.session:store_run", 2), 2, 0, 0),
        (Strike("shipbench.results.tunings:write_tuning"), 2, 1, 0),
        (Strike("shipbench.results.tunings:write_tuning", 2), 2, 1, 1),
    ],
    ids=["between trials", "before the choice", "after the choice", "before the final run"],
)
def test_tune(
    command: Execute, cache: Path, tmp_path: Path, strike: Strike, trials: int, chosen: int, final: int
) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    grid = Grid(data, cache, tmp_path / "t", "linear", 1, ("--grid", "lr=0.1,0.001", "--jobs", "1"))
    line = ("tune", *grid.arguments[1:])
    ended = command(*line, strike=strike)
    assert ended.code == 130, ended.said
    assert ended.stopped == [CONTINUES.format("runs and the checkpoints of unfinished ones", grid.results)]
    assert len(load_results(grid.results)) == trials
    assert [len(tuning["final_runs"]) for tuning in load_tunings(grid.results)] == [final] * chosen
    assert leftovers(grid.results) == []
    ended = command(*line)
    assert ended.code == 0, ended.said
    assert f"{2 - trials} to do" in ended.said
    frame = load_results(grid.results)
    assert list(frame["protocol"].sort_values()) == ["final", "tuning", "tuning"]
    (tuning,) = load_tunings(grid.results)
    assert tuning["final_runs"] == list(frame.query("protocol == 'final'")["run_id"])


def _copy(root: Path) -> Path:
    return vtab_tree(root / "copy", tasks=("cifar100", "dtd"))


def _imported(root: Path) -> list[str]:
    """Return what is in the folder to import into, and beside it."""
    return sorted(str(path.relative_to(root)) for pattern in ("*", "*/*") for path in root.glob(pattern))


def test_an_import_of_images_that_is_stopped_while_it_copies(command: Execute, tmp_path: Path) -> None:
    line = ("data", "import", _copy(tmp_path), "--to", tmp_path / "library" / "vtab-1k")
    ended = command(*line, strike=Strike("shipbench.data.acquisition.importing:unpack", 2))
    assert ended.code == 130, ended.said
    assert ended.stopped == ["stopped; nothing was imported"]
    assert _imported(tmp_path / "library") == []
    ended = command(*line)
    assert ended.code == 0, ended.said
    assert _imported(tmp_path / "library") == ["vtab-1k", "vtab-1k/cifar100", "vtab-1k/dtd"]


@pytest.mark.parametrize(
    "strike",
    # Two tasks are moved once while they are staged.
    [Strike("pathlib:Path.rename", 3), Strike("shutil:rmtree")],
    ids=["between two tasks", "after the last"],
)
def test_an_import_of_images_that_is_stopped_too_late_is_complete(
    command: Execute, tmp_path: Path, strike: Strike
) -> None:
    ended = command("data", "import", _copy(tmp_path), "--to", tmp_path / "library" / "vtab-1k", strike=strike)
    assert ended.code == 0, ended.said
    assert "imported 2 tasks" in ended.said
    assert _imported(tmp_path / "library") == ["vtab-1k", "vtab-1k/cifar100", "vtab-1k/dtd"]


def test_a_download_that_is_stopped_after_its_import_is_complete(command: Execute, tmp_path: Path) -> None:
    copy, target = _copy(tmp_path), tmp_path / "library" / "vtab-1k"
    files = {str(path.relative_to(copy)): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with serve(Hub({"datasets/someone/VTAB-1k": files})) as hub:
        line = ("data", "fetch", "--repo", "someone/VTAB-1k", "--endpoint", hub.address, "--to", target)
        ended = command(*line, strike=Strike("shutil:rmtree", 2))
    assert ended.code == 0, ended.said
    assert _imported(target.parent) == ["vtab-1k", "vtab-1k/cifar100", "vtab-1k/dtd", "vtab-1k/fetched.json"]
