"""Runs of VPT with the options of its paper: they resume, their exports predict, and ablations find them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shipbench import RunSpec, load_results, run
from shipbench.results.store import Store
from shipbench.runs.export import export_run
from tests.conftest import Outcome
from tests.methods.exports import assert_predicts
from tests.training.interruptions import assert_same_results, interrupted

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("vpt-shallow", {"location": "pad", "prompt_length": 8}),
    ("vpt-shallow", {"location": "pad", "prompt_length": 3}),
    ("vpt-shallow", {"location": "below", "prompt_length": 2, "pooling": "img_pool"}),
    ("vpt-shallow", {"location": "prepend-pixel", "pooling": "prompt_pool"}),
    ("vpt-deep", {"initiation": "cls-nolastl", "prompt_length": 2, "deep_layers": 2, "deep_order": "reverse"}),
    ("vpt-deep", {"location": "add", "deep_shared": True, "dropout": 0.1}),
]


@pytest.fixture(scope="module")
def make(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunSpec]]:
    common = {"image_size": 48, "epochs": 2, "batch_size": 4, "drop_path": 0.3, "lr": 0.01}

    def spec(method: str, **settings: Any) -> RunSpec:
        place: dict[str, Any] = {"backbone": "test_vit", "checkpoint": "random", "precision": "fp32", "data": data}
        return RunSpec(method=method, task="dtd", overrides={**common, **settings}, **place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", "0")
        patch.setenv("SHIPBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield spec


@pytest.mark.parametrize(
    ("method", "settings"),
    OPTIONS,
    ids=lambda case: "-".join(map(str, dict(case).values())) if isinstance(case, dict) else case,
)
def test_a_run_resumes_and_its_export_predicts(
    make: Callable[..., RunSpec], tmp_path: Path, data: Path, method: str, settings: dict[str, Any]
) -> None:
    spec = make(method, **settings)
    record = run(spec, results=tmp_path / "whole")
    interrupted(spec, tmp_path / "resumed", 1)
    run(spec, results=tmp_path / "resumed")
    assert_same_results(tmp_path / "whole", tmp_path / "resumed")
    export_run(Store(tmp_path / "whole"), record.run_id, tmp_path / "run.safetensors")
    assert_predicts(tmp_path / "run.safetensors", record, tmp_path / "whole", data)


def test_ablations_of_vpt(shipbench: Callable[..., Outcome], data: Path, cache: Path, tmp_path: Path) -> None:
    line = ("--backbone", "test_vit", "--checkpoint", "random", "--set", "image_size=32", "--set", "capture=off")
    line += ("--epochs", "1", "--tasks", "dtd", "--data", str(data), "--results", str(tmp_path / "r"))
    outcome = shipbench("ablate", "--method", "vpt-deep", *line)
    assert outcome.code == 0, outcome.err
    assert set(load_results(tmp_path / "r")["switches"]) == {"", "shared-prompts", "added-prompts", "image-pooling"}
    sweeps = ("--sweep", "deep_layers=1,2", "--sweep", "deep_order=forward,reverse", "--product")
    outcome = shipbench("ablate", "--method", "vpt-deep", *line, *sweeps, "--dry-run")
    assert "4 runs: 4 to do" in outcome.err


@pytest.mark.parametrize("location", ["prepend-pixel", "below", "pad"])
def test_trained_pixels_compute_in_bf16_beside_frozen_weights(
    make: Callable[..., RunSpec], tmp_path: Path, location: str
) -> None:
    spec = replace(make("vpt-shallow", location=location, prompt_length=2), precision="bf16")
    assert run(spec, results=tmp_path).precision == "bf16"
