"""BOFT's rotation by blocks computes what the library computes with dense matrices."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from peft import BOFTConfig
from peft.tuners.boft import layer as boft
from shipbench_baselines.peft_boft import BlockRotated

from shipbench.hardware.precision import ComputeContext
from tests.methods.test_peft import IMAGES, LABELS, built


def moved(**settings: Any) -> Any:
    """Return a model of BOFT whose rotations and scales are drawn."""
    model = built("peft-boft", **settings).model.train()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "boft" in name:
            torch.nn.init.normal_(parameter, 1.0 if "boft_s" in name else 0.0, 0.3, generator)
    return model


def with_layers_of_the_library(model: Any) -> Any:
    dense = copy.deepcopy(model)
    for module in dense.modules():
        if type(module) is BlockRotated:
            module.__class__ = boft.Linear
    return dense


def gradients(model: Any, precision: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    with ComputeContext(torch.device("cpu"), precision).autocast():
        loss = model.loss(IMAGES, LABELS)
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"boft_block_size": 16}, {"boft_block_size": 0, "boft_block_num": 2}, {"boft_dropout": 0.5}],
    ids=str,
)
def test_a_step_by_blocks_has_the_gradients_of_the_library(settings: dict[str, Any], precision: str) -> None:
    model = moved(**settings)
    dense = with_layers_of_the_library(model)
    assert sum(type(module) is BlockRotated for module in model.modules()) == 4 * len(model.backbone.blocks)
    ours, theirs = gradients(model, precision), gradients(dense, precision)
    tolerance = 1e-4 if precision == "fp32" else 0.05
    for name, expected in theirs.items():
        error = (ours[name] - expected).norm() / expected.norm()
        assert error <= tolerance, (name, error)


def test_a_layer_without_a_bias_is_rotated_too() -> None:
    layer = boft.Linear(torch.nn.Linear(8, 6, bias=False), "default", BOFTConfig(boft_block_size=4))
    torch.nn.init.normal_(layer.boft_R["default"])
    inputs = torch.randn(3, 5, 8)
    expected = layer(inputs)
    BlockRotated.replace(layer)
    torch.testing.assert_close(layer(inputs), expected)
    layer.merge()
    torch.testing.assert_close(layer(inputs), expected)
    assert type(layer) is BlockRotated


def test_layers_of_several_factors_and_convolutions_stay_with_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    resnet = timm.create_model("test_resnet", num_classes=0)
    convolution = boft.Conv2d(resnet.layer1[0].conv1, "default", BOFTConfig(boft_block_size=2))
    BlockRotated.replace(convolution)
    assert type(convolution) is boft.Conv2d
    monkeypatch.setattr("peft.tuners.boft.layer.get_fbd_cuda", object)
    model = built("peft-boft", boft_n_butterfly_factor=2).model
    assert all(type(model.backbone.get_submodule(name)) is boft.Linear for name in model.layers)
