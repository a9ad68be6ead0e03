"""Small models of three methods on a backbone of at least five blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shipbench_baselines.full import FullModel
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from torch import nn

from shipbench.methods.ship import Ship, ShipConfig
from shipbench.training.inputs import FeatureInputs


def ship(backbone: Any) -> nn.Module:
    bank = torch.randn(3, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    return Ship(backbone, 4, [0, 2, 4], bank, ShipConfig(prompt_length=2, prototypes=3, attribute_length=2))


def vpt(backbone: Any) -> nn.Module:
    return Vpt(backbone, 4, VptConfig(prompt_length=3, dropout=0.2), deep=True)


def images(count: int) -> FeatureInputs:
    """Return images of four classes, the same for the same number."""
    generator = torch.Generator().manual_seed(count)
    return FeatureInputs(torch.randn(count, 3, 32, 32, generator=generator), torch.arange(count) % 4)


STACKABLE: dict[str, Callable[[Any], nn.Module]] = {"ship": ship, "vpt-deep": vpt}
MODELS = {**STACKABLE, "full": lambda backbone: FullModel(backbone, 4)}
