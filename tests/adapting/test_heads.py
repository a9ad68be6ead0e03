"""A trained head in timm's classifiers: plain, as a 1 x 1 convolution, after a norm, and two that are averaged."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from shipbench_baselines.linear import LinearModel
from torch import nn

from shipbench.adapting import with_head
from shipbench.backbones import input_size_of, load_backbone
from shipbench.errors import InputError

CLASSES = 5
LEVIT = {"embed_dim": (32, 32, 32), "depth": (1, 1, 1), "key_dim": 8, "num_heads": (1, 2, 2)}
# A backbone for each kind of classifier, with sizes that make it small.
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("resnet10t", {}),
    "after the backbone's norm": ("test_convnext", {}),
    "convolution": ("resnetv2_50", {"layers": (1, 1, 1, 1), "channels": (16, 16, 16, 16), "stem_chs": 8}),
    "convolution, at the top": ("dla46_c", {}),
    "two": ("deit_tiny_distilled_patch16_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}),
    "two after norms": ("levit_128s", LEVIT),
    "after a norm": ("levit_128s", {**LEVIT, "distilled": False}),
    "two after norms, one module": ("repvit_m0_9", {"embed_dim": (8, 8, 8, 8), "depth": (1, 1, 1, 1)}),
    "one after a norm, one module": (
        "repvit_m0_9",
        {"embed_dim": (8, 8, 8, 8), "depth": (1, 1, 1, 1), "distillation": False},
    ),
    "two, of which one reads the patches": ("volo_d1_224", {}),
    "after a norm, with dropout": (
        "efficientvit_m0",
        {"embed_dim": (16, 16, 16), "depth": (1, 1, 1), "num_heads": (1, 1, 1)},
    ),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_merged_head_loads_into_the_timm_model_and_computes_the_same(kind: str) -> None:
    name, sizes = HEADS[kind]
    backbone = load_backbone(name, checkpoint="random", architecture=sizes)
    images = torch.randn(2, 3, *input_size_of(backbone), generator=torch.Generator().manual_seed(0))
    model: Any = LinearModel(backbone, CLASSES).eval()
    nn.init.normal_(model.readout.head.weight)
    plain: Any = timm.create_model(name, num_classes=CLASSES, **sizes)
    before = torch.get_rng_state()
    plain.load_state_dict(model.merged_state())
    assert torch.equal(before, torch.get_rng_state())
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), model(images), rtol=1e-4, atol=1e-4)


class Backbone(nn.Module):
    """A backbone of width 8 without weights, whose classifier ``layers`` are made when it is reset."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.head = [layers], nn.Identity()

    def reset_classifier(self, num_classes: int) -> None:
        self.head: nn.Module = nn.Sequential(*self.layers[0])


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ((nn.LayerNorm(8), nn.Linear(8, CLASSES)), "head.0"),
        ((nn.Linear(8, 8), nn.Linear(8, CLASSES)), "head.0"),
        ((nn.Linear(4, CLASSES), nn.Linear(4, CLASSES)), "head.0"),
        ((nn.Linear(8, CLASSES, bias=False),), "head.0"),
    ],
)
def test_a_classifier_of_other_layers_is_not_merged(layers: tuple[nn.Module, ...], named: str) -> None:
    with pytest.raises(InputError, match=rf"cannot be merged: timm's classifier has {named}, .* without --merged"):
        with_head({}, nn.Linear(8, CLASSES), Backbone(*layers))


def test_the_norm_of_a_classifier_keeps_its_epsilon() -> None:
    head = nn.Linear(8, CLASSES)
    state = with_head({}, head, Backbone(nn.BatchNorm1d(8, eps=3.0), nn.Linear(8, CLASSES)))
    torch.testing.assert_close(state["head.1.weight"], 2 * head.weight.detach())
    assert not any(value.requires_grad for value in state.values())
    norm = nn.BatchNorm1d(8).state_dict()
    assert {key: state[f"head.0.{key}"].tolist() for key in norm} == {
        key: value.tolist() for key, value in norm.items()
    }
