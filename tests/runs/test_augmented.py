"""Runs on augmented images train on images, never on features that were computed once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shipbench import RunSpec, data, run
from shipbench.runs.preparation import Prepared, assemble, prepare
from shipbench.tasks.catalogue import Augment
from shipbench.tasks.task_file import load_task_file
from shipbench.training.inputs import FeatureInputs, ImageInputs
from tests.data.builders import vtab_tree
from tests.tasks.pictures import image_folder
from tests.training.interruptions import interrupted


def prepared(tmp_path: Path, augment: Augment) -> Prepared:
    root = vtab_tree(tmp_path / "data", tasks=("dtd",))
    settings = {"image_size": 64, "epochs": 1, "batch_size": 4}
    spec = RunSpec("linear", "dtd", backbone="test_vit", checkpoint="random", data=root, overrides=settings)
    ready = prepare(spec)
    images = data.load(replace(ready.resolved.task, augment=augment), image_size=64, root=root)
    return replace(ready, task_data=images)


@pytest.mark.parametrize("augment", ["none", "flip-crop"])
def test_a_linear_probe_trains_on_images_if_they_are_augmented(tmp_path: Path, cache: Path, augment: Augment) -> None:
    ready = prepared(tmp_path, augment)
    assembled = assemble(ready)
    assert isinstance(assembled.train, FeatureInputs if augment == "none" else ImageInputs)
    assert (assembled.trained is assembled.built.model) == (augment == "flip-crop")
    assert (cache / "features").exists() == (augment == "none")
    first, second = (assembled.train.for_epoch(0, epoch).batch(torch.arange(4)) for epoch in (0, 1))
    assert torch.equal(first, second) == (augment == "none")
    # Frozen weights may be in bf16.
    with ready.compute.autocast():
        assert torch.isfinite(assembled.trained.loss(second, torch.arange(4)))  # type: ignore[operator]


def test_training_images_have_a_margin_and_others_have_none(tmp_path: Path, cache: Path) -> None:
    ready = prepared(tmp_path, "flip-crop")
    assert ready.task_data["train"].images.shape[1:3] == (73, 73)
    assert ready.task_data["test"].images.shape[1:3] == (64, 64)
    assembled = assemble(ready)
    assert assembled.train.batch(torch.arange(2)).shape == (2, 3, 64, 64)


def spec_of(folder: Path, augment: Augment) -> RunSpec:
    file = folder / f"{augment}.toml"
    file.write_text(f'[[task]]\nname = "own"\nsource = "folder:own"\nresize = "crop"\naugment = "{augment}"\n')
    settings = {"image_size": 64, "epochs": 3, "batch_size": 4, "warmup_epochs": 0}
    (task,) = load_task_file(file).tasks
    return RunSpec("linear", task, backbone="test_vit", checkpoint="random", overrides=settings)


def test_a_resumed_run_of_a_task_file_repeats_its_crops(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", "0")
    image_folder(tmp_path / "own", {"train": (4, 4, 4), "test": (2, 2, 2)})
    spec = spec_of(tmp_path, "flip-crop")
    interrupted(spec, tmp_path / "interrupted", 1)
    resumed, whole = (run(spec, results=tmp_path / name) for name in ("interrupted", "whole"))
    plain = run(spec_of(tmp_path, "none"), results=tmp_path / "whole")
    assert (resumed.run_id, resumed.train_loss) == (whole.run_id, whole.train_loss)
    assert plain.run_id != whole.run_id
    assert plain.train_loss != whole.train_loss
