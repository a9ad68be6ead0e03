"""Tuners of the peft library on convolutions: what they change, what they merge into, and what they are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import timm
import torch
from shipbench_baselines.peft_layers import target_layers
from timm.layers import (
    BatchNormAct2d,
    Conv2dSame,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from torch import Tensor, nn

from shipbench.backbones import load_backbone
from shipbench.errors import InputError
from shipbench.methods import BuildContext, get_method
from shipbench.settings import configure

# HRA multiplies matrices of all inputs of a kernel, which takes seconds on a whole model.
WHOLE = ["peft-adalora", "peft-dora", "peft-hira", "peft-ia3", "peft-ln-tuning", "peft-loha", "peft-lokr", "peft-lora"]
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def backbone_of(name: str) -> Any:
    return load_backbone(name, checkpoint="random", image_size=64)


def built(method: str, backbone: Any, **settings: Any) -> Any:
    chosen = configure(get_method(method).settings, settings)
    return get_method(method).build(BuildContext(backbone, 5, chosen, lambda kind: torch.empty(0), print)).model


def disturbed(model: nn.Module) -> Any:
    """The model in evaluation mode with trained tensors off their start, and norms that hide no branch."""
    draws = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=draws), alpha=0.1)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, BatchNormAct2d)):
            nn.init.ones_(module.weight)
    return model.eval()


def assert_merges(model: Any, plain: Any) -> None:
    plain.load_state_dict(model.merged_state())
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", WHOLE)
def test_a_tuner_of_convolutions_merges_into_them(method: str) -> None:
    model = disturbed(built(method, backbone_of("resnet10t")))
    assert any(p.requires_grad for name, p in model.named_parameters() if not name.startswith("head."))
    assert_merges(model, timm.create_model("resnet10t", num_classes=5))


def test_a_tuner_that_leaves_layers_as_they_are_is_refused() -> None:
    """OSF changes matrices alone: on convolutions, it would train nothing but the head."""
    words = r"peft-osf leaves conv1\.0 as it is; name other layers in target_modules"
    for chosen in ("auto", "conv1.0"):
        with pytest.raises(InputError, match=words):
            built("peft-osf", backbone_of("resnet10t"), target_modules=chosen)


def test_lora_with_a_bias_acts_on_convolutions_without_one() -> None:
    """The library cannot merge it, which export says."""
    model = built("peft-lora", one(nn.Conv2d, bias=False), target_modules="conv", lora_bias=True)
    assert [name for name, _ in model.named_parameters() if name.endswith("lora_B.default.bias")]


class OneConvolution(nn.Module):
    """A backbone of one convolution (3, 8) on images of 64 x 64 pixels."""

    pretrained_cfg: ClassVar[dict[str, Any]] = {"input_size": (3, 64, 64), "classifier": "head"}
    head_hidden_size = 8

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.conv, self.head = convolution, nn.Identity()

    def reset_classifier(self, num_classes: int) -> None:
        self.head: nn.Module = nn.Linear(8, num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.conv(images)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def one(layer: Callable[..., nn.Module], **options: Any) -> OneConvolution:
    torch.manual_seed(0)
    return OneConvolution(layer(3, 8, **{"kernel_size": 3, **options})).eval()


@pytest.mark.parametrize("layer", [StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame])
def test_convolutions_that_standardise_their_weights_are_refused(layer: type[nn.Module]) -> None:
    with pytest.raises(InputError, match=r"target_modules: conv standardises its weights in every pass"):
        target_layers(one(layer), "conv", norms=False)
    assert target_layers(one(layer), "conv", norms=True) == ["conv"]


ORDINARY, SAME = {"padding": 1}, {"layer": Conv2dSame, "stride": 2}
DILATED, WIDE = {"padding": 2, "dilation": 2}, {"kernel_size": (1, 7), "padding": (0, 3)}


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        ("peft-lora", [ORDINARY, SAME, WIDE]),
        ("peft-dora", [ORDINARY, SAME, WIDE]),
        ("peft-ia3", [ORDINARY, SAME, WIDE, DILATED]),
        ("peft-loha", [ORDINARY, WIDE, DILATED]),
        ("peft-lokr", [ORDINARY, WIDE, DILATED]),
        ("peft-adalora", [ORDINARY, WIDE, DILATED]),
        ("peft-hira", [ORDINARY, WIDE, DILATED]),
        ("peft-hra", [ORDINARY]),
        ("peft-boft", [ORDINARY]),
        ("peft-oft", []),
    ],
)
def test_a_tuner_is_refused_where_it_computes_another_convolution(method: str, kinds: list[dict[str, Any]]) -> None:
    """The library drops the padding or dilation of some convolutions, and OFT adds up overlapping patches."""
    sizes = {"peft-boft": {"boft_block_size": 3}, "peft-oft": {"oft_block_size": 3}}.get(method, {})
    for kind in (ORDINARY, SAME, DILATED, WIDE):
        backbone = one(**{"layer": nn.Conv2d, **kind})
        if kind in kinds:
            plain = with_classifier(backbone)
            assert_merges(disturbed(built(method, backbone, target_modules="conv", **sizes)), plain)
        else:
            with pytest.raises(InputError, match=rf"{method} (does not fit|computes something else)"):
                built(method, backbone, target_modules="conv", **sizes)


def with_classifier(backbone: OneConvolution) -> OneConvolution:
    plain = copy.deepcopy(backbone)
    plain.reset_classifier(5)
    return plain


def test_oft_stays_possible_on_pointwise_convolutions() -> None:
    backbone = one(nn.Conv2d, kernel_size=1)
    plain = with_classifier(backbone)
    assert_merges(disturbed(built("peft-oft", backbone, target_modules="conv", oft_block_size=3)), plain)


def test_grouped_convolutions_train_where_they_cannot_be_merged() -> None:
    backbone = one(nn.Conv2d)
    backbone.conv = nn.Sequential(backbone.conv, nn.Conv2d(8, 8, 3, groups=2))
    model = disturbed(built("peft-lora", backbone, target_modules="1"))
    assert model(IMAGES).isfinite().all()
    with pytest.raises(InputError, match=r"the library cannot merge this tuner into the backbone: .*groups > 1"):
        model.merged_state()
