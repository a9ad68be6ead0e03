"""Frozen weights that are cast to bf16 once give what autocast gives, which casts them at every use."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from timm.layers import StdConv2d
from torch import Tensor, nn

from shipbench.backbones import load_backbone, sha256_of
from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import BuildContext, get_method, list_methods
from shipbench.training.snapshot import weights_to_keep

CPU = torch.device("cpu")
BF16 = ComputeContext(CPU, "bf16")
SIZE, CLASSES = 64, 5
# The default blocks of two tuners are wider than the tiny ViT; a copy of OSF's model lacks its gradient hooks.
NOT_COMPARED = ("peft-c3a", "peft-vblora", "peft-osf")


def build(name: str) -> Any:
    torch.manual_seed(0)
    method = get_method(name)
    backbone = load_backbone("test_vit", checkpoint="random", image_size=SIZE, drop_path=0.3)
    features = torch.randn(20, len(backbone.blocks), backbone.embed_dim)
    return method.build(BuildContext(backbone, CLASSES, method.settings(), lambda _: features, lambda _: None)).model


def step(model: Any) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Logits, loss and gradients on one batch under autocast."""
    images = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with BF16.autocast():
        with torch.no_grad():
            logits = model.eval()(images)
        torch.manual_seed(2)
        loss = model.train().loss(images, torch.arange(4))
    loss.backward()
    return logits, loss.detach(), [p.grad for p in model.parameters() if p.requires_grad]


def frozen_layers(model: nn.Module) -> set[torch.dtype]:
    """The types of the frozen tensors of linear and convolutional layers."""
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    return {p.dtype for layer in layers for p in layer.parameters(recurse=False) if not p.requires_grad}


@pytest.mark.parametrize("name", [name for name in list_methods() if name not in NOT_COMPARED])
def test_every_method_computes_the_same_numbers(name: str) -> None:
    model = build(name)
    expected = step(copy.deepcopy(model))
    trained = {key: p.dtype for key, p in model.named_parameters() if p.requires_grad}
    kept = weights_to_keep(model)
    cast_frozen_weights(model, BF16)
    logits, loss, gradients = step(model)
    assert torch.equal(logits, expected[0])
    assert torch.equal(loss, expected[1])
    for ours, theirs in zip(gradients, expected[2], strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    assert frozen_layers(model) <= {torch.float32 if name.startswith("peft-") else torch.bfloat16}
    assert {key: p.dtype for key, p in model.named_parameters() if p.requires_grad} == trained
    assert set(trained.values()) == {torch.float32}
    assert {key: value.dtype for key, value in weights_to_keep(model).items()} == {k: v.dtype for k, v in kept.items()}


def test_fp32_and_full_fine_tuning_keep_their_weights() -> None:
    for name, compute in (("ship", ComputeContext(CPU, "fp32")), ("full", BF16)):
        model = build(name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        cast_frozen_weights(model, compute)
        after = model.state_dict()
        assert all(after[key].dtype == value.dtype and torch.equal(after[key], value) for key, value in before.items())


def test_convolutions_that_standardise_their_weights_keep_them() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(StdConv2d(3, 4, 3), nn.Conv2d(4, 5, 1)).requires_grad_(False)
    with BF16.autocast():
        expected = model(images)
        cast_frozen_weights(model, BF16)
        assert torch.equal(model(images), expected)
    assert [layer.weight.dtype for layer in model] == [torch.float32, torch.bfloat16]


def test_other_modules_over_the_same_tensors_keep_fp32() -> None:
    model = build("vpt-deep")
    vit = model.backbone
    twin = copy.deepcopy(vit, {id(p): p for p in vit.parameters()})
    sha256 = sha256_of(vit)
    cast_frozen_weights(model, BF16)
    assert frozen_layers(twin) == {torch.float32}
    assert sha256_of(vit) == sha256
    # A second model over the same backbone, as in a stack, casts nothing twice.
    weight = vit.blocks[0].attn.qkv.weight
    cast_frozen_weights(model, BF16)
    assert vit.blocks[0].attn.qkv.weight is weight
    # Norms and embeddings stay as they are.
    assert vit.norm.weight.dtype == vit.pos_embed.dtype == torch.float32
