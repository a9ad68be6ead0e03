"""``shipbench run`` from a folder on disk to records, with a tiny ViT that timm ships."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from shipbench import load_results
from shipbench.engine.executors.portable import portable as send
from shipbench.planning.plan import PlannedRun
from shipbench.results.loading import load_history, load_predictions
from shipbench.tasks.catalogue import VTAB
from tests.conftest import TIMES, Shipbench
from tests.data.builders import vtab_tree

TINY = ("--backbone", "test_vit", "--checkpoint", "random", "--set", "image_size=64", "--epochs", "2")
METHODS = ("full", "linear", "ship", "vpt-deep", "vpt-shallow")
COLUMNS = [
    "run_id",
    "status",
    "error",
    "created",
    "shipbench_version",
    "git_commit",
    "host",
    "device",
    "precision",
    "method",
    "switches",
    "task",
    "group",
    "suite",
    "backbone",
    "backbone_sha256",
    "image_size",
    "seed",
    "recipe",
    "config",
    "data_fingerprint",
    "image_format",
    "num_classes",
    "n_train",
    "n_test",
    "trainable_params",
    "trainable_params_without_head",
    "total_params",
    "final_test_acc",
    "best_test_acc",
    "best_test_epoch",
    "val_acc",
    "train_loss",
    "train_seconds",
    "eval_seconds",
    "train_images_per_second",
    "eval_images_per_second",
    "peak_memory_bytes",
    "levels",
    "affinity",
    "cfg.lr",
    "cfg.epochs",
    "cfg.prompt_length",
    "cfg.threshold",
]


@pytest.fixture
def tree(tmp_path: Path, cache: Path) -> Path:
    return vtab_tree(tmp_path / "data", tasks=("cifar100", "dtd"))


def test_all_nineteen_tasks(shipbench: Shipbench, tmp_path: Path, cache: Path) -> None:
    data = vtab_tree(tmp_path / "data", folders={"cifar100": "cifar", "oxford_iiit_pet": "oxford_pet"})
    line = ("--method", "ship", "--tasks", "all", "--data", data, "--results", tmp_path / "r", "--epochs", "1")
    outcome = shipbench("run", *TINY, *line)
    assert outcome.code == 0, outcome.err
    frame = load_results(tmp_path / "r")
    assert len(frame) == 19
    assert set(frame["status"]) == {"done"}
    assert set(frame["task"]) == {task.name for task in VTAB.tasks}
    assert "mean of groups" in outcome.out
    assert "mean of tasks" in outcome.out


def test_every_method_leaves_a_complete_record(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    results = tmp_path / "r"
    line = ("--method", "all", "--tasks", "dtd", "--data", tree, "--results", results)
    assert shipbench("run", *TINY, *line).code == 0
    frame = load_results(results)
    assert tuple(frame["method"]) == METHODS
    assert not set(COLUMNS) - set(frame.columns)
    # The backbone's normalisation is recorded although no setting names it.
    assert set(zip(frame["cfg.mean"], frame["cfg.std"], strict=True)) == {("0.5,0.5,0.5", "0.5,0.5,0.5")}
    assert (frame["cfg.image_size"] == frame["image_size"]).all()
    assert set(frame["pillow_version"]) == {version("pillow")}
    assert frame["final_test_acc"].between(0, 1).all()
    assert (frame["best_test_epoch"] >= 0).all()
    ship = frame[frame["method"] == "ship"].iloc[0]
    levels, affinity = json.loads(ship["levels"]), json.loads(ship["affinity"])
    deviations = json.loads(ship["affinity_std"])
    assert levels[0] == 0
    assert len(affinity) == len(affinity[0]) == len(deviations) == len(deviations[0]) == 6
    assert max(map(max, deviations)) > 0
    for run_id, accuracy in zip(frame["run_id"], frame["final_test_acc"], strict=True):
        predictions = load_predictions(results, [run_id])
        assert len(predictions) == 6
        assert (predictions["label"] == predictions["predicted"]).mean() == pytest.approx(accuracy)
        history = load_history(results, [run_id])
        assert list(history["split"]) == ["train", "train", "test"]
    assert sorted(p.stem for p in (results / "weights").iterdir()) == sorted(
        frame.loc[frame["method"] != "full", "run_id"]
    )


def test_parquet_is_read_by_other_tools(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    line = ("--method", "linear,ship", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r")
    assert shipbench("run", *TINY, *line).code == 0
    plain = pd.concat(pd.read_parquet(path) for path in (tmp_path / "r" / "runs").glob("*.parquet"))
    query = f"select count(*), max(final_test_acc) from read_parquet('{tmp_path}/r/runs/*.parquet', union_by_name=true)"
    assert duckdb.sql(query).fetchall() == [(2, plain["final_test_acc"].max())]


def test_a_run_that_exists_is_skipped(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    line = ("--method", "linear", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r")
    shipbench("run", *TINY, *line)
    record = next((tmp_path / "r" / "runs").iterdir())
    before = record.read_bytes()
    assert "0 to do, 1 done" in shipbench("run", *TINY, *line).err
    assert record.read_bytes() == before
    assert "1 to do" in shipbench("run", *TINY, *line, "--force").err
    assert record.read_bytes() != before


def test_a_warning_about_a_short_copy_is_printed_once_for_each_task(
    shipbench: Shipbench, tree: Path, tmp_path: Path
) -> None:
    line = ("--method", "linear", "--tasks", "cifar100,dtd", "--seeds", "0,1", "--results", tmp_path / "r")
    outcome = shipbench("run", *TINY, *line, "--data", tree)
    assert outcome.code == 0, outcome.err
    assert [line for line in outcome.err.splitlines() if line.startswith("warning")] == [
        f"warning: {task} has 10 train images instead of 1000, 6 test images instead of {n_test}; "
        f"check the copy with: shipbench data verify {tree}"
        for task, n_test in (("cifar100", 10_000), ("dtd", 1880))
    ]


def test_a_grid_that_does_not_fit_on_the_disk_stops_before_it_begins(
    shipbench: Shipbench, tree: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The images of the tree have 12 x 10 pixels and are cached at that size.
    one_task = 16 * 12 * 10 * 3
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2 * one_task - 1))
    line = ("--method", "linear", "--tasks", "cifar100,dtd", "--data", tree, "--results", tmp_path / "r")
    outcome = shipbench("run", *TINY, *line)
    assert outcome.code == 2
    assert f"in {cache / 'images'}, where 0.0 GB are free; set SHIPBENCH_CACHE" in outcome.err
    assert "decoding" not in outcome.err
    assert not (tmp_path / "r").exists()


def test_a_dry_run_writes_nothing(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    line = ("--method", "linear,ship", "--tasks", "dtd,cifar100", "--seeds", "0-1", "--data", tree)
    outcome = shipbench("run", *TINY, *line, "--results", tmp_path / "r", "--dry-run")
    assert "8 runs: 8 to do" in outcome.err
    assert outcome.out.count("to do: will run") == 8
    assert not (tmp_path / "r").exists()


def test_the_same_run_twice_gives_the_same_record(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        line = ("--method", "all", "--tasks", "dtd", "--data", tree, "--results", tmp_path / name)
        assert shipbench("run", *TINY, *line, "--set", "drop_path=0.2").code == 0
    a, b = (load_results(tmp_path / name) for name in ("a", "b"))
    pd.testing.assert_frame_equal(a.drop(columns=TIMES), b.drop(columns=TIMES))
    for load in (load_history, load_predictions):
        pd.testing.assert_frame_equal(load(tmp_path / "a", a["run_id"]), load(tmp_path / "b", b["run_id"]))


@pytest.mark.usefixtures("forked_workers")
def test_workers_give_the_records_of_one_process(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    for name, jobs in (("one", 1), ("two", 2)):
        line = ("--method", "linear,ship", "--tasks", "dtd", "--data", tree, "--results", tmp_path / name)
        assert shipbench("run", *TINY, *line, "--jobs", jobs).code == 0
    one, two = (load_results(tmp_path / name) for name in ("one", "two"))
    pd.testing.assert_series_equal(one["run_id"], two["run_id"])
    # A worker has fewer threads and adds in another order.
    pd.testing.assert_series_equal(one["train_loss"], two["train_loss"], rtol=1e-4)


def test_data_may_move_and_seeds_may_not(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    line = ("--method", "linear", "--tasks", "dtd", "--results", tmp_path / "r")
    shipbench("run", *TINY, *line, "--data", tree)
    moved = tree.rename(tmp_path / "moved")
    assert "0 to do" in shipbench("run", *TINY, *line, "--data", moved).err
    assert "1 to do" in shipbench("run", *TINY, *line, "--data", moved, "--seeds", "1").err


def test_a_failed_run_is_recorded_and_stops_no_other(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    results = tmp_path / "r"
    line = ("--method", "vpt-deep,linear", "--tasks", "dtd", "--data", tree, "--results", results)
    explode = ("--set", "vpt-deep.optimizer=sgd", "--set", "vpt-deep.lr=1e30")
    outcome = shipbench("run", *TINY, *line, *explode)
    assert outcome.code == 1
    frame = load_results(results).set_index("method")
    assert frame.loc["vpt-deep", "status"] == "failed"
    assert "epoch" in frame.loc["vpt-deep", "error"]
    assert frame.loc["linear", "status"] == "done"
    again = shipbench("run", *TINY, *line, *explode)
    assert "0 to do, 1 done; 1 failed before" in again.err
    assert "1 of 2 runs failed before and were not repeated; --retry-failed repeats them" in again.err
    assert again.code == 1
    assert "2 runs: 1 to do" in shipbench("run", *TINY, *line, *explode, "--retry-failed").err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ((), "and the same command continues from there"),
        (("--retry-failed",), "and the same command continues from there"),
        (("--force",), "without --force the same command executes only the runs that have no record"),
    ],
)
def test_an_interrupted_grid_explains_how_to_continue(
    shipbench: Shipbench,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: tuple[str, ...],
    words: str,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shipbench.engine.supervisor.execute_plan", stop)
    line = ("--method", "linear", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r", "--jobs", "1")
    outcome = shipbench("run", *TINY, *line, *option)
    assert outcome.code == 130
    assert "stopped; finished runs" in outcome.err
    assert words in outcome.err


def test_a_cluster_may_have_devices_that_are_not_here(
    shipbench: Shipbench, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    portable: list[PlannedRun] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("shipbench.engine.executors.dask.DaskExecutor.check", lambda executor: None)
    monkeypatch.setattr(
        "shipbench.engine.supervisor.execute_plan",
        lambda plan, *_: portable.extend(map(send, plan.chosen)) or [],
    )
    line = ("--method", "linear", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r", "--device", "cuda")
    line = (*TINY, *line, "--engine", "dask", "--scheduler", "tcp://127.0.0.1:1")
    refused = shipbench("run", *line)
    assert refused.code == 2
    assert "--precision fp32 or bf16" in refused.err
    outcome = shipbench("run", *line, "--precision", "bf16")
    assert outcome.code == 0, outcome.err
    assert [(run.spec.device, run.spec.precision) for run in portable] == [("cuda", "bf16")]


def test_a_config_file_supplies_options(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(
        f"method = ['linear', 'ship']\ntasks = 'dtd'\ndata = '{tree}'\nresults = '{tmp_path / 'r'}'\n"
        "backbone = 'test_vit'\ncheckpoint = 'random'\nepochs = 1\n"
        "[set]\nimage_size = 64\nship.prompt_length = 3\n"
    )
    outcome = shipbench("run", "--config", tmp_path / "grid.toml", "--method", "ship")
    assert outcome.code == 0, outcome.err
    frame = load_results(tmp_path / "r")
    assert list(frame["method"]) == ["ship"]
    assert list(frame["cfg.prompt_length"]) == [3]


def test_runs_are_listed(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    shipbench("run", *TINY, "--method", "linear", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r")
    rows = json.loads(shipbench("list", "runs", "--results", tmp_path / "r", "--json").out)
    assert [row["method"] for row in rows] == ["linear"]
    assert "linear" in shipbench("list", "runs", "--results", tmp_path / "r").out
