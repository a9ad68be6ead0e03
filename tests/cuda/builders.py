"""Tiny trainings on any device, and their comparison bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from shipbench_baselines.full import FullModel
from shipbench_baselines.linear import Readout
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from torch import Tensor, nn

from shipbench.backbones import load_backbone
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import AdaptedMethod, BuildContext, get_method, list_methods
from shipbench.methods.ship import Ship, ShipConfig
from shipbench.recipe import Recipe
from shipbench.training.history import Fit
from shipbench.training.inputs import FeatureInputs, ImageInputs, Inputs
from shipbench.training.loop import Hooks, fit

SIZE, CLASSES = 32, 4
# Without drop_last, batches of 6 out of 14 images leave a last one of 2.
RECIPE = Recipe(epochs=3, batch_size=6, lr=0.01, warmup_epochs=1, eval_every=1, drop_last=False)


def ship_model(backbone: Any) -> nn.Module:
    bank = torch.randn(3, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    return Ship(backbone, CLASSES, [0, 2, 4], bank, ShipConfig(prompt_length=2, prototypes=3, attribute_length=2))


def vpt_model(backbone: Any) -> nn.Module:
    return Vpt(backbone, CLASSES, VptConfig(prompt_length=3), deep=True)


MODELS = {
    "ship": ship_model,
    "vpt-deep": vpt_model,
    "full": lambda backbone: FullModel(backbone, CLASSES),
    "linear": lambda backbone: Readout(3 * SIZE * SIZE, CLASSES),
}

ADAPTERS = [name for name in list_methods() if isinstance(get_method(name), AdaptedMethod)]


def build(name: str, backbone: Any) -> nn.Module:
    """A model of ``MODELS``, or of an adapter with its default settings."""
    if name in MODELS:
        return MODELS[name](backbone)
    method = get_method(name)
    context = BuildContext(backbone, CLASSES, method.settings(), lambda _: torch.empty(0), lambda _: None)
    return method.build(context).model


def backbone(device: torch.device) -> Any:
    return load_backbone("test_vit", checkpoint="random", image_size=SIZE, drop_path=0.4).to(device)


def images(count: int, device: torch.device, *, resident: bool = True) -> ImageInputs:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(256, (count, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    mean, std = (torch.full((1, 3, 1, 1), 0.5, device=device) for _ in range(2))
    labels = (torch.arange(count) % CLASSES).to(device)
    return ImageInputs(pixels.to(device) if resident else pixels, labels, mean, std)


def features(count: int, device: torch.device) -> FeatureInputs:
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(count, 3 * SIZE * SIZE, generator=generator).to(device)
    return FeatureInputs(values, (torch.arange(count) % CLASSES).to(device))


def train(
    name: str,
    recipe: Recipe,
    compute: ComputeContext,
    hooks: Hooks | None = None,
    *,
    inputs: Inputs | None = None,
) -> tuple[Fit, nn.Module]:
    """Train a model on 14 images, or on ``inputs``, and evaluate it on 25 streamed ones after every epoch."""
    torch.manual_seed(0)
    device = compute.device
    model = build(name, backbone(device)).to(device)
    if name == "linear":
        return fit(model, features(14, device), features(25, device), recipe, compute, 0, hooks), model
    inputs = images(14, device) if inputs is None else inputs
    return fit(model, inputs, images(25, device, resident=False), recipe, compute, 0, hooks), model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def assert_identical(first: tuple[Fit, nn.Module], second: tuple[Fit, nn.Module]) -> None:
    """Equal losses, evaluations and weights, bit for bit."""
    for a, b in zip(first[0].epochs, second[0].epochs, strict=True):
        assert a.train_loss == b.train_loss
        assert a.evaluation is not None
        assert b.evaluation is not None
        assert a.evaluation.loss == b.evaluation.loss
        assert torch.equal(a.evaluation.confidence, b.evaluation.confidence)
    for name, value in weights(first[1]).items():
        assert torch.equal(value, weights(second[1])[name]), name
