"""Every method of the package runs, resumes, exports, predicts and merges, on a real tiny ViT and real files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
from safetensors import safe_open

from shipbench import RunSpec, run
from shipbench.errors import InputError
from shipbench.methods import get_method
from shipbench.record import RunRecord
from shipbench.results.store import Store
from shipbench.runs.export import export_run, load_exported
from shipbench.runs.merged import export_merged
from tests.conftest import Outcome
from tests.methods.exports import assert_predicts, images_of, probabilities_of
from tests.methods.shipped import SHIPPED
from tests.training.interruptions import assert_same_results, interrupted

MERGEABLE = [name for name in SHIPPED if get_method(name).mergeable]
TRAIN_BACKBONE_TENSORS = ["adapter-houlsby", "bitfit", "difffit", "full", "ln-tuning", "partial"]


class Finished(NamedTuple):
    """A run's record and results folder."""

    record: RunRecord
    store: Store


@pytest.fixture(scope="module")
def spec(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunSpec]]:
    settings: dict[str, Any] = {"image_size": 48, "epochs": 2, "batch_size": 4, "drop_path": 0.3, "lr": 0.01}
    # The normalisation of test_vit has equal means and deviations.
    settings |= {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}

    def make(method: str, **fields: Any) -> RunSpec:
        common: dict[str, Any] = {"backbone": "test_vit", "checkpoint": "random", "precision": "fp32", "data": data}
        return RunSpec(method=method, task="dtd", overrides=settings, **common, **fields)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", "0")
        patch.setenv("SHIPBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield make


@pytest.fixture(scope="module")
def finished(spec: Callable[..., RunSpec], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Finished]:
    """One finished run of each method, with its whole model where it trains one."""
    root = tmp_path_factory.mktemp("finished")

    @cache
    def finish(method: str) -> Finished:
        return Finished(run(spec(method, keep_weights="full"), results=root / method), Store(root / method))

    return finish


@pytest.mark.parametrize("method", SHIPPED)
def test_a_run_resumes_and_its_export_predicts_as_it_did(
    spec: Callable[..., RunSpec], finished: Callable[[str], Finished], tmp_path: Path, data: Path, method: str
) -> None:
    whole = spec(method, keep_weights="full")
    record, store = finished(method)
    assert record.flops_per_image > 0
    assert record.trainable_params_without_head < record.total_params
    interrupted(whole, tmp_path / "resumed", 1)
    run(whole, results=tmp_path / "resumed")
    assert_same_results(store.root, tmp_path / "resumed")
    export_run(store, record.run_id, tmp_path / "run.safetensors")
    assert_predicts(tmp_path / "run.safetensors", record, store.root, data)


@pytest.mark.parametrize("method", SHIPPED)
def test_weights_hold_what_was_trained_and_no_frozen_tensor(finished: Callable[[str], Finished], method: str) -> None:
    record, store = finished(method)
    file = store.path("weights", record.run_id)
    with safe_open(file, "pt") as stream:
        names, stored = list(stream.keys()), stream.metadata()["weights"]
        count = sum(stream.get_tensor(name).numel() for name in names)
    assert any(name.startswith("backbone.") for name in names) == (method in TRAIN_BACKBONE_TENSORS)
    assert stored == ("full" if method == "full" else "trained")
    # SHIP also stores its bank, which is not trained.
    assert count == record.trainable_params or method == "ship"


@pytest.mark.parametrize("method", MERGEABLE)
def test_a_merged_export_is_a_plain_timm_model(
    finished: Callable[[str], Finished], tmp_path: Path, method: str
) -> None:
    record, store = finished(method)
    file, other = tmp_path / "merged.safetensors", tmp_path / "run.safetensors"
    merged = export_merged(store, record.run_id, file, checkpoint="random")
    plain: Any = eval(merged.call(file), {"timm": timm})
    export_run(store, record.run_id, other)
    images = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_exported(other, checkpoint="random").model(images)
        torch.testing.assert_close(plain.eval()(images), expected, rtol=1e-4, atol=1e-5)
    with safe_open(file, "pt") as stream:
        metadata = stream.metadata()
    stated = {name: metadata[name] for name in ("architecture", "run_id", "method", "task")}
    assert stated == {"architecture": "test_vit", "run_id": record.run_id, "method": method, "task": "dtd"}
    with pytest.raises(InputError, match="is the plain timm model that 'export --merged' writes"):
        load_exported(file)
    assert {name: json.loads(metadata[name]) for name in ("image_size", "num_classes", "mean", "std")} == {
        "image_size": 48,
        "num_classes": 47,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
    }


@pytest.mark.parametrize("method", ["ship", "adaptformer"])
def test_what_cannot_be_merged_is_refused_by_name(
    finished: Callable[[str], Finished], shipbench: Callable[..., Outcome], tmp_path: Path, method: str
) -> None:
    record, store = finished(method)
    outcome = shipbench("export", record.run_id, tmp_path / "m.safetensors", "--merged", "--results", store.root)
    assert outcome.code == 2
    assert f"what {method} adds is no change of the backbone's weights" in outcome.err
    assert not (tmp_path / "m.safetensors").exists()


def test_the_command_writes_a_merged_file_and_says_how_to_load_it(
    finished: Callable[[str], Finished], shipbench: Callable[..., Outcome], tmp_path: Path
) -> None:
    record, store = finished("lora")
    file = tmp_path / "m.safetensors"
    line = ("export", record.run_id, file, "--results", store.root)
    outcome = shipbench(*line, "--merged", "--checkpoint", "random")
    assert outcome.code == 0, outcome.err
    call = f'timm.create_model("test_vit", num_classes=47, img_size=48, checkpoint_path="{file}")'
    assert f"load it with {call}" in outcome.out
    assert "--checkpoint is for --merged" in shipbench(*line, "--checkpoint", "random").err


def test_a_whole_model_needs_no_backbone_weights(finished: Callable[[str], Finished], data: Path) -> None:
    record, store = finished("full")
    assert record.trainable_params == record.total_params
    exported = load_exported(store.path("weights", record.run_id))
    assert probabilities_of(exported, images_of(data)).shape == (6, 47)


def test_the_trials_of_a_tuning_keep_no_whole_model(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    record = run(spec("full", keep_weights="full", protocol="tuning"), results=tmp_path)
    assert not Store(tmp_path).path("weights", record.run_id).exists()


def test_the_weights_to_keep_are_no_part_of_the_run_id(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    first = run(spec("full"), results=tmp_path)
    with pytest.raises(InputError, match="repeat it with --force --keep-weights full"):
        export_run(Store(tmp_path), first.run_id, tmp_path / "run.safetensors")
    again = run(spec("full", keep_weights="full"), results=tmp_path, force=True)
    assert again.run_id == first.run_id
    export_run(Store(tmp_path), first.run_id, tmp_path / "run.safetensors")
    # The weights of an earlier execution are not those of the record that replaces it.
    run(spec("full"), results=tmp_path, force=True)
    assert not Store(tmp_path).path("weights", first.run_id).exists()
    with pytest.raises(InputError, match="choose from trained, full"):
        spec("full", keep_weights="all")


def test_trained_tensors_of_the_backbone_are_restored(finished: Callable[[str], Finished]) -> None:
    record, store = finished("ln-tuning")
    file = store.path("weights", record.run_id)
    exported = load_exported(file, checkpoint="random")
    with safe_open(file, "pt") as stream:
        stored = stream.get_tensor("backbone.norm.weight")
    assert torch.equal(exported.model.get_parameter("backbone.norm.weight"), stored)
    assert not torch.equal(stored, torch.ones_like(stored))
