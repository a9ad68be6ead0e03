"""The only module of the parity tests that builds shipbench's models and reads their trained tensors."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import shipbench_baselines.vpt
import torch
from shipbench_baselines.full import FullModel
from shipbench_baselines.linear import LinearModel
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.methods.ship import Ship, ShipConfig, load_official_checkpoint
from shipbench.prompting import drop_rates, sample_drop_factors
from tests.parity import golden
from tests.parity.strategies import ShipShape
from tests.reference import ship as reference


def ship_config(
    settings: reference.Settings, *, length: int, shared: int, attribute: int, normalise_bank: bool = False
) -> ShipConfig:
    """The ``ShipConfig`` equivalent to the reference's settings and the prompt lengths."""
    return ShipConfig(
        prompt_length=length,
        shared_length=shared,
        attribute_length=attribute,
        attribute_levels=settings.attribute_levels,
        attribute_scale=settings.attribute_scale,
        temperature=settings.temperature,
        normalise_bank=normalise_bank,
        attention=settings.attention,
        attention_scale=settings.attention_scale,
        prompt_attention=settings.prompt_attention,
        matching_weight=settings.matching_weight,
        top_k=settings.top_k,
    )


def config_of(shape: ShipShape) -> ShipConfig:
    """The ``ShipConfig`` of a problem's shape."""
    return ship_config(
        shape.settings,
        length=shape.length,
        shared=shape.shared,
        attribute=shape.attribute,
        normalise_bank=shape.normalise_bank,
    )


def build_ship(
    vit: VisionTransformer, parameters: Mapping[str, Tensor], levels: tuple[int, ...], bank: Tensor, config: ShipConfig
) -> Ship:
    """A ``Ship`` over a copy of the backbone with the trained tensors ``parameters``, in the bank's precision."""
    model = Ship(deepcopy(vit), len(parameters["head.bias"]), list(levels), bank, config)
    return _with_parameters(model.to(bank.dtype), parameters)


def build_vpt(vit: VisionTransformer, parameters: Mapping[str, Tensor]) -> Vpt:
    """A ``Vpt`` over a copy of the backbone with the trained tensors ``parameters``, deep if they are."""
    tokens = parameters["prompts.tokens"]
    projected = "prompts.projection.weight" in parameters
    config = VptConfig(prompt_length=tokens.shape[1], project=tokens.shape[2] if projected else 0)
    model = Vpt(deepcopy(vit), len(parameters["head.bias"]), config, deep=len(tokens) > 1)
    return _with_parameters(model.to(tokens.dtype), parameters)


def build_linear(vit: VisionTransformer, head: Mapping[str, Tensor]) -> LinearModel:
    """A linear probe with the trained tensors ``head``."""
    model = LinearModel(deepcopy(vit), len(head["head.bias"])).to(head["head.bias"].dtype)
    return _with_parameters(model, {f"readout.{name}": value for name, value in head.items()})


def build_full(vit: VisionTransformer, head: Mapping[str, Tensor]) -> FullModel:
    """Full fine-tuning of a copy of the backbone, with the initial head ``head``."""
    model = FullModel(deepcopy(vit), len(head["head.bias"])).to(head["head.bias"].dtype)
    model.head.load_state_dict({name.removeprefix("head."): value for name, value in head.items()})
    return model.eval()


def load_ship(name: str, dtype: torch.dtype = torch.float32) -> Ship:
    """The official SHIP checkpoint of a golden file, loaded by shipbench."""
    stored, config = golden.tensors(name), golden.header(name)["config"]
    model = load_official_checkpoint(
        golden.under("state", stored),
        levels=config["visual_prompt_indices"],
        prototypes=stored["feature_bank"],
        num_heads=config["num_heads"],
        image_size=config["img_size"],
        patch_size=config["patch_size"],
    )
    return model.to(dtype)


def official_vpt_state(variant: str) -> dict[str, Tensor]:
    """The official VPT checkpoint of a golden file: the shared backbone and the tensors of the variant."""
    stored = golden.tensors("vpt_tiny")
    return golden.under("backbone", stored) | golden.under(f"{variant}.state", stored)


def load_vpt(variant: str, dtype: torch.dtype = torch.float32) -> Vpt:
    """The official VPT checkpoint of a golden file, loaded by shipbench."""
    return shipbench_baselines.vpt.load_official_checkpoint(official_vpt_state(variant), num_heads=4).to(dtype)


def drawn_factors(vit: VisionTransformer, batch: int, seed: int) -> Tensor:
    """The stochastic-depth factors (L, 2, B) that a training pass draws after ``torch.manual_seed(seed)``."""
    torch.manual_seed(seed)
    factors = sample_drop_factors(drop_rates(vit), batch)
    assert factors is not None
    return factors


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained tensors by name; those of a linear probe without the prefix ``readout.``."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {name.removeprefix("readout."): parameter for name, parameter in named.items()}


def _with_parameters(model: nn.Module, parameters: Mapping[str, Tensor]) -> nn.Module:
    initial = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(initial) == set(parameters)
    with torch.no_grad():
        for name, parameter in initial.items():
            assert parameter.shape == parameters[name].shape, name
            parameter.copy_(parameters[name])
    return model.eval()
