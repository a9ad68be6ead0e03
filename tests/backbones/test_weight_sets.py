"""Several sets of weights in one checkpoint: the conventional one is used and named, any other choice is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from shipbench.backbones import load_backbone, origin_of
from shipbench.errors import InputError
from tests.backbones.test_layouts import Weights, assert_same, loaded, refusal, saved, vit_state

CONVENTIONAL = [
    ("model_ema", "model"),
    ("state_dict_ema", "state_dict"),
    ("state_dict", "model"),
    ("teacher", "student"),
    ("teacher.backbone", "student.module.backbone"),
    ("state_dict_ema.model", "state_dict.model"),
    ("state_dict.module.base_encoder", "state_dict.module.momentum_encoder"),
]
# The first two are sets that a Lightning module trains and starts from.
UNCONVENTIONAL = [
    ("state_dict.model", "state_dict.pretrained_model"),
    ("state_dict.model", "state_dict.target_net"),
    ("model.teacher", "model.backbone"),
    ("model", "model.teacher"),
    ("model", "pretrained.state_dict"),
    ("model", "polyak"),
]


@pytest.fixture(scope="module")
def state() -> Weights:
    return vit_state()


def under(prefix: str, state: Weights) -> Weights:
    # Safetensors would refuse tensors that share memory.
    return {f"{prefix}.{key}": value.clone() for key, value in state.items()}


def convnext(seed: int) -> Weights:
    torch.manual_seed(seed)
    return timm.create_model("test_convnext", num_classes=10).state_dict()


@pytest.mark.parametrize(("chosen", "other"), CONVENTIONAL)
def test_of_two_sets_of_weights_the_conventional_one_is_used_and_said(
    tmp_path: Path, state: Weights, chosen: str, other: str
) -> None:
    model = loaded(saved(tmp_path / "w.pth", under(other, vit_state(6)) | under(chosen, state)))
    assert_same(model, state)
    assert origin_of(model).part == chosen
    assert f"w.pth: using the weights under {chosen}, not those under {other}" in origin_of(model).notes


@pytest.mark.parametrize(("one", "other"), UNCONVENTIONAL)
def test_two_sets_of_weights_without_a_convention_are_refused(
    tmp_path: Path, state: Weights, one: str, other: str
) -> None:
    path = saved(tmp_path / "w.pth", under(one, state) | under(other, vit_state(6)))
    assert "several sets of weights" in refusal(path)
    assert f"{one}, {other}" in refusal(path)


def test_averages_of_several_sets_need_a_convention_too(tmp_path: Path, state: Weights) -> None:
    sets = [f"{wrapper}.{name}" for wrapper in ("state_dict_ema", "state_dict") for name in ("model", "target_net")]
    content = {key: value for name in sets for key, value in under(name, state).items()}
    assert "several sets of weights" in refusal(saved(tmp_path / "w.pth", content))


@pytest.mark.parametrize(("chosen", "other"), CONVENTIONAL)
def test_other_models_than_a_plain_vit_follow_the_same_conventions(tmp_path: Path, chosen: str, other: str) -> None:
    state = convnext(3)
    path = saved(tmp_path / "w.pth", under(other, convnext(4)) | under(chosen, state))
    model = load_backbone("test_convnext", checkpoint=path, image_size=64)
    assert torch.equal(model.stem[0].weight, state["stem.0.weight"])
    assert origin_of(model).part == chosen
    assert f"w.pth: using the weights under {chosen}, not those under {other}" in origin_of(model).notes


@pytest.mark.parametrize(("one", "other"), UNCONVENTIONAL)
def test_other_models_than_a_plain_vit_are_refused_without_a_convention(tmp_path: Path, one: str, other: str) -> None:
    path = saved(tmp_path / "w.pth", under(one, convnext(3)) | under(other, convnext(4)))
    with pytest.raises(InputError, match=f"there are several sets of weights in .*w.pth: {one}, {other};"):
        load_backbone("test_convnext", checkpoint=path, image_size=64)


def test_the_part_of_a_single_set_is_recorded_for_other_models_too(tmp_path: Path) -> None:
    state = {key.replace("blocks.0.", "blocks.0._orig_mod."): value for key, value in convnext(3).items()}
    path = saved(tmp_path / "w.pth", {"model": under("module", state)})
    origin = origin_of(load_backbone("test_convnext", checkpoint=path, image_size=64))
    assert (origin.part, origin.notes) == ("model.module", ())


def test_a_resnet_whose_blocks_begin_as_it_does_is_found_under_any_prefix(tmp_path: Path) -> None:
    plain = timm.create_model("resnet18").state_dict()
    for content in (plain, under("model", plain)):
        model = load_backbone("resnet18", checkpoint=saved(tmp_path / "w.pth", content), image_size=64)
        assert torch.equal(model.state_dict()["layer1.0.conv1.weight"], plain["layer1.0.conv1.weight"])
    path = saved(tmp_path / "w.pth", under("model", plain) | under("model_ema", plain))
    assert origin_of(load_backbone("resnet18", checkpoint=path, image_size=64)).part == "model_ema"
    for one in (plain, under("model", plain)):
        saved(path, one | under("ema", plain))
        with pytest.raises(InputError, match=r"there are several sets of weights in .*w\.pth: .*ema"):
            load_backbone("resnet18", checkpoint=path, image_size=64)
