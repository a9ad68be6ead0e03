"""Tuners of the peft library equal their equations with settings that no golden number has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shipbench.methods import BuildContext, get_method
from shipbench.settings import configure
from tests.parity.comparing import assert_all_close, assert_close, gradients
from tests.reference.tiny import TinyVit, batch, tiny_vit, uniform

TOLERANCE = 1e-11
SHAPE, CLASSES = TinyVit(depth=2, width=16, heads=2), 3
LINEAR = {"attn.qkv": (16, 48), "attn.proj": (16, 16), "mlp.fc1": (16, 32), "mlp.fc2": (32, 16)}
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("peft-lora", {"r": 3, "lora_alpha": 5}, list(LINEAR)),
    ("peft-lora", {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": "qkv,fc1"}, ["attn.qkv", "mlp.fc1"]),
    ("peft-lora", {"r": 2, "lora_alpha": 1, "bias": "lora_only", "target_modules": "fc2"}, ["mlp.fc2"]),
    ("peft-dora", {"r": 3, "lora_alpha": 5, "target_modules": "qkv, fc2"}, ["attn.qkv", "mlp.fc2"]),
    ("peft-ia3", {}, list(LINEAR)),
    ("peft-ia3", {"target_modules": "qkv,fc1", "feedforward_modules": "fc1"}, ["attn.qkv", "mlp.fc1"]),
]
every_case = pytest.mark.parametrize(("name", "settings", "layers"), CASES)


def build(name: str, settings: dict[str, Any]) -> Any:
    """A model whose trained tensors are all random."""
    method, generator = get_method(name), torch.Generator().manual_seed(5)
    vit = tiny_vit(SHAPE, torch.Generator().manual_seed(3)).requires_grad_(True)
    chosen = configure(method.settings, settings)
    model: Any = method.build(BuildContext(vit, CLASSES, chosen, lambda kind: torch.empty(0), print)).model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 + uniform(generator, *parameter.shape, bound=0.6))
    return model.eval()


def changed_layer(name: str, settings: dict[str, Any], tensors: dict[str, Tensor], layer: str) -> dict[str, Tensor]:
    """The weight and bias of a linear layer that computes what the tuner makes of it."""
    start = f"tuner.model.{layer}"
    weight, bias = (tensors[f"{start}.base_layer.{kind}"] for kind in ("weight", "bias"))
    if name == "peft-ia3":
        scale = tensors[f"{start}.ia3_l.default"]
        if layer.endswith(settings.get("feedforward_modules", "fc2")):
            return {f"{layer}.weight": weight * scale.reshape(1, -1), f"{layer}.bias": bias}
        return {f"{layer}.weight": weight * scale.reshape(-1, 1), f"{layer}.bias": bias * scale.flatten()}
    rank = settings["r"]
    factor = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
    low_rank = tensors[f"{start}.lora_B.default.weight"] @ tensors[f"{start}.lora_A.default.weight"]
    weight = weight + factor * low_rank
    if name == "peft-dora":
        # The norm of the direction counts as constant in the gradient, as in DoRA's paper.
        magnitude = tensors[f"{start}.lora_magnitude_vector.default.weight"]
        weight = magnitude[:, None] * weight / weight.detach().square().sum(dim=1, keepdim=True).sqrt()
    return {f"{layer}.weight": weight, f"{layer}.bias": bias}


@every_case
def test_logits_gradients_and_merged_weights(name: str, settings: dict[str, Any], layers: list[str]) -> None:
    model, (images, labels) = build(name, settings), batch(SHAPE, 4, CLASSES, torch.Generator().manual_seed(7))
    tensors, plain = dict(model.named_parameters()), tiny_vit(SHAPE, torch.Generator().manual_seed(3))
    weights: dict[str, Tensor] = {}
    for block in range(SHAPE.depth):
        for layer in layers:
            weights |= changed_layer(name, settings, tensors, f"blocks.{block}.{layer}")
    features = torch.func.functional_call(plain, weights, (images,))
    expected = F.linear(features, tensors["head.weight"], tensors["head.bias"])
    assert_close(model(images), expected, TOLERANCE, "logits")
    trained = {key: value for key, value in tensors.items() if value.requires_grad}
    slopes = gradients(F.cross_entropy(expected, labels), trained)
    assert_all_close(gradients(model.loss(images, labels), trained), slopes, TOLERANCE)
    plain.reset_classifier(CLASSES)
    plain.double().load_state_dict(model.merged_state())
    assert_close(plain(images), expected, TOLERANCE, "merged logits")


@every_case
def test_trained_parameters(name: str, settings: dict[str, Any], layers: list[str]) -> None:
    trained = {key: p.numel() for key, p in build(name, settings).named_parameters() if p.requires_grad}
    counted = sum(count for key, count in trained.items() if not key.startswith("head."))
    sizes = {layer: LINEAR[layer] for layer in layers}
    if name == "peft-ia3":
        scaled = settings.get("feedforward_modules", "fc2")
        expected = sum(inward if layer.endswith(scaled) else out for layer, (inward, out) in sizes.items())
    else:
        own = (name == "peft-dora") + (settings.get("bias") == "lora_only")
        expected = sum(settings["r"] * (inward + out) + own * out for inward, out in sizes.values())
    assert counted == SHAPE.depth * expected


@pytest.mark.parametrize("name", ["peft-lora", "peft-dora", "peft-ia3"])
def test_tuners_start_at_the_pretrained_function(name: str) -> None:
    vit, (images, _) = tiny_vit(SHAPE, torch.Generator().manual_seed(3)), batch(SHAPE, 4, CLASSES, torch.Generator())
    expected = vit(images).detach()
    method = get_method(name)
    built = method.build(BuildContext(vit, CLASSES, method.settings(), lambda kind: torch.empty(0), print))
    model: Any = built.model.double().eval()
    assert_close(model(images), F.linear(expected, model.head.weight, model.head.bias), TOLERANCE, "logits")
