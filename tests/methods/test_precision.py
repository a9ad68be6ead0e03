"""What a method computes in float32 under bf16: the logits of its head, and what depends on them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shipbench.adapting import Noise
from shipbench.backbones import load_backbone
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import BuildContext, get_method, list_methods
from shipbench.methods.ship.attributes import guide
from shipbench.prompting import new_head
from shipbench.prompting.forward import _entering
from shipbench.prompting.interface import BlockPlan, Glimpse

BF16 = ComputeContext(torch.device("cpu"), "bf16")
SIZE, CLASSES = 64, 5
# The default blocks of these tuners are wider than the tiny ViT.
TOO_WIDE = ("peft-c3a", "peft-vblora")


@pytest.mark.parametrize("name", [name for name in list_methods() if name not in TOO_WIDE])
def test_logits_are_those_of_a_float32_head(name: str) -> None:
    torch.manual_seed(0)
    method = get_method(name)
    backbone = load_backbone("test_vit", checkpoint="random", image_size=SIZE)
    features = torch.randn(20, len(backbone.blocks), backbone.embed_dim)
    context = BuildContext(backbone, CLASSES, method.settings(), lambda _: features, lambda _: None)
    model, inputs = method.build(context).model.eval(), list[Tensor]()
    (head,) = (module for path, module in model.named_modules() if path in ("head", "readout.head"))
    head.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    with torch.no_grad(), BF16.autocast():
        logits = model(torch.randn(3, 3, SIZE, SIZE))
    assert logits.dtype == torch.float32
    assert torch.equal(logits, F.linear(inputs[0].float(), head.weight, head.bias))


def test_close_classes_do_not_tie_in_bf16() -> None:
    torch.manual_seed(0)
    head = new_head(64, 2)
    with torch.no_grad():
        head.weight[1] = head.weight[0]
        head.bias[0] = 8.0
        head.bias[1] = 8.001
        with BF16.autocast():
            logits = head(torch.randn(50, 64))
    assert bool((logits.argmax(dim=1) == 1).all())


def test_the_head_keeps_the_gradients_of_float32() -> None:
    torch.manual_seed(0)
    head, features = new_head(64, 3), torch.randn(50, 64)
    slopes: list[Any] = []
    for compute in (ComputeContext(torch.device("cpu"), "fp32"), BF16):
        head.zero_grad()
        with compute.autocast():
            loss = F.cross_entropy(head(features), torch.arange(50) % 3)
        loss.backward()
        slopes.append(head.weight.grad.clone())
    assert torch.equal(slopes[0], slopes[1])


def test_what_stochastic_depth_keeps_is_scaled_in_float32() -> None:
    torch.manual_seed(0)
    dropped = Noise(training=True).drop_path(torch.ones(64, 2, 3, dtype=torch.bfloat16), 0.1)
    # In bf16, the factor would be 1.109375.
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.9, rel=1e-6)]


def test_the_guide_of_attribute_prompts_is_not_rounded_to_bf16() -> None:
    torch.manual_seed(0)
    # A bank far from zero, as that of a real backbone: rounding the mean hides what depends on the image.
    tokens, bank = torch.randn(2, 4, 64), 8 + torch.randn(20, 64)
    expected = guide(tokens, bank)
    with BF16.autocast():
        guided = guide(tokens, bank)
        from_bf16 = guide(tokens.bfloat16(), bank)
    assert torch.equal(guided, expected)
    assert from_bf16.dtype == torch.float32


class Projected:
    """Prompts as a layer returns them under autocast."""

    plan = (BlockPlan(fresh=("prompts",)),)

    def fresh(self, block: int, name: str) -> Tensor:
        return torch.ones(1, 2, 4, dtype=torch.bfloat16)

    def guided(self, block: int, name: str, glimpse: Glimpse) -> Tensor:
        raise NotImplementedError


def test_prompts_that_a_layer_makes_enter_in_float32() -> None:
    (stream,) = _entering(Projected(), 0, None, 3)
    assert stream.tokens.dtype == torch.float32
