"""Prompts and adapters over every family of ViTs: our pass equals the literal one, in pooled and rotary ones too."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from torch import Tensor, nn

from shipbench.adapting import AdaptedModel, Adapter
from shipbench.backbones import pooled_features
from shipbench.backbones.architecture import why_unpromptable
from shipbench.methods import BuildContext, get_method
from shipbench.methods.ship import Ship, ShipConfig
from shipbench.prompting import block_outputs, embed, stacked_forward
from tests.parity.adapters import build_ship, build_vpt, trained
from tests.parity.comparing import assert_all_close, assert_close, gradients, leaves
from tests.parity.families import CLASSES, DEPTH, FAMILIES, WIDTH, Family, batch, tiny
from tests.reference import ship, vpt
from tests.reference import vit as equations
from tests.reference.tiny import drop_factors, ship_parameters, uniform, vpt_parameters

TOLERANCE = 1e-9
LEVELS = (0, 2)
EVERY = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def generator(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@EVERY
@pytest.mark.parametrize("blocks", [1, DEPTH], ids=["shallow", "deep"])
def test_vpt(family: Family, blocks: int) -> None:
    vit, (images, labels) = tiny(family), batch(family)
    assert why_unpromptable(vit) == ""
    parameters = vpt_parameters(
        width=WIDTH, blocks=blocks, length=3, projection=None, classes=CLASSES, generator=generator()
    )
    model = build_vpt(vit, parameters).eval()
    literal = leaves(parameters)
    result = vpt.forward(vit, literal, images, labels)
    assert result.loss is not None
    assert_close(model(images), result.logits, TOLERANCE, "logits")
    loss = model.loss(images, labels)
    assert_all_close(gradients(loss, trained(model)), gradients(result.loss, literal), TOLERANCE)


def ship_settings(family: Family) -> tuple[ship.Settings, ShipConfig, int]:
    """The reference's settings, ours, and the attribute prompts; without a class token, nothing selects by it."""
    chosen = {"top_k": 4} if family.class_token else {"matching_weight": 0.0, "top_k": 4}
    length = 2 if family.class_token else 0
    settings = ship.Settings(levels=LEVELS, **chosen)  # type: ignore[arg-type]
    feature = "cls" if family.class_token else "mean"
    config = ShipConfig(
        prompt_length=3,
        shared_length=2,
        attribute_length=length,
        feature=feature,
        **chosen,  # type: ignore[arg-type]
    )
    return settings, config, length


def ship_tensors(length: int, seed: int = 2) -> dict[str, Tensor]:
    return ship_parameters(
        width=WIDTH, levels=2, length=3, shared=2, attribute=(1, length), classes=CLASSES, generator=generator(seed)
    )


@EVERY
@pytest.mark.parametrize("attend", ["last", "all"])
def test_ship(family: Family, attend: Any) -> None:
    vit, (images, labels) = tiny(family), batch(family)
    settings, config, length = ship_settings(family)
    settings = ship.Settings(**{**vars(settings), "prompt_attention": attend})
    config = ShipConfig(**{**vars(config), "prompt_attention": attend})
    parameters, bank = ship_tensors(length), uniform(generator(), 6, WIDTH)
    factors = drop_factors(DEPTH, len(images), 0.5, generator())
    model = build_ship(vit, parameters, LEVELS, bank, config).train()
    literal = leaves(parameters)
    result = ship.forward(vit, literal, settings, images, labels, bank=bank, drop_factors=factors)
    terms = model.loss_terms(images, labels, drop_factors=factors)
    assert_close(terms.logits, result.logits, TOLERANCE, "logits")
    if family.class_token:
        assert_close(terms.matching, result.matching, TOLERANCE, "matching")
    assert result.loss is not None
    assert_all_close(gradients(terms.total, trained(model)), gradients(result.loss, literal), TOLERANCE)


@EVERY
def test_runs_of_a_stack_equal_separate_ones(family: Family) -> None:
    vit, (images, _) = tiny(family), batch(family, 4)
    _, config, length = ship_settings(family)
    bank = uniform(generator(), 6, WIDTH)
    models = [build_ship(vit, ship_tensors(length, seed), LEVELS, bank, config).eval() for seed in (2, 3)]
    with torch.no_grad():
        inputs = [model.stack_input(2, match=family.class_token) for model in models]
        outputs = stacked_forward(vit, embed(vit, images), inputs)
        for model, output, own in zip(models, outputs, images.chunk(2), strict=True):
            assert_close(model.logits_of(output), model(own), TOLERANCE, "logits")


@EVERY
def test_without_prompts_the_pass_is_timms(family: Family) -> None:
    vit, (images, _) = tiny(family), batch(family)
    config = ShipConfig(prompt_length=0, shared_length=0, attribute_length=0, matching_weight=0, feature="mean")
    model = Ship(vit, CLASSES, list(range(DEPTH)), None, config).double().eval()
    with torch.no_grad():
        features = pooled_features(vit, images)
        assert_close(model(images), model.head(features), TOLERANCE, "logits")
        *_, last = block_outputs(vit, images)
        assert_close(vit.norm(last), vit.forward_features(images), TOLERANCE, "tokens")


@pytest.mark.parametrize("pooling", ["img_pool", "prompt_pool", "imgprompt_pool"])
@pytest.mark.parametrize("name", ["SigLIP", "DINOv3"])
def test_poolings_of_vpt_read_the_tokens_that_they_name(name: str, pooling: Any) -> None:
    family = FAMILIES[name]
    vit, (images, _) = tiny(family), batch(family)
    parameters = vpt_parameters(
        width=WIDTH, blocks=DEPTH, length=3, projection=None, classes=CLASSES, generator=generator()
    )
    model = Vpt(vit, CLASSES, VptConfig(prompt_length=3, pooling=pooling), deep=True).double().eval()
    with torch.no_grad():
        for key, parameter in trained(model).items():
            parameter.copy_(parameters[key])
        tokens = vit.norm(vpt.forward(vit, parameters, images).block_tokens[-1])
        prompts, rest = tokens[:, 1:4], torch.cat([tokens[:, :1], tokens[:, 4:]], dim=1)
        first = {"img_pool": vit.num_prefix_tokens, "imgprompt_pool": 1 if family.class_token else 0}
        parts = [rest[:, first[pooling] :]] if pooling in first else []
        read = torch.cat([*parts, *([] if pooling == "img_pool" else [prompts])], dim=1).mean(dim=1)
        assert_close(model(images), model.head(vit.fc_norm(read)), TOLERANCE, "logits")


class Changed(nn.Module):
    """A linear layer whose outputs change by a low-rank map."""

    def __init__(self, layer: nn.Module, change: Tensor) -> None:
        super().__init__()
        self.layer, self.change = layer, change

    def forward(self, u: Tensor) -> Tensor:
        return self.layer(u) + u @ self.change.T


def literal_lora(vit: Any, model: Any, images: Tensor) -> Tensor:
    changed = deepcopy(vit)
    for block, pair in zip(changed.blocks, model.adapter.lora, strict=True):
        change = model.adapter.config.factor * pair.b @ pair.a
        fused = block.attn.qkv is not None
        layers = {"qkv": change} if fused else dict(zip(("q_proj", "k_proj", "v_proj"), change.chunk(3), strict=True))
        for layer, rows in layers.items():
            setattr(block.attn, layer, Changed(getattr(block.attn, layer), rows))
    return literal_logits(changed, model, images, lambda index, h: 0 * h)


def literal_adaptformer(vit: Any, model: Any, images: Tensor) -> Tensor:
    def beside(index: int, h: Tensor) -> Tensor:
        branch = model.adapter.adaptformer[index]
        return model.adapter.config.scale * branch.up(F.relu(branch.down(h)))

    return literal_logits(vit, model, images, beside)


def literal_logits(vit: Any, model: Any, images: Tensor, beside: Any) -> Tensor:
    tokens, angles = equations.embed(vit, images), equations.angles_of(vit)
    for index, block in enumerate(vit.blocks):
        query, key, value = equations.queries_keys_values(block.attn, block.norm1(tokens), angles)
        mixed = equations.merge_heads(equations.attend(equations.attention_logits(query, key), value))
        h = tokens + equations.attention_branch(block, mixed)
        tokens = h + equations.mlp_branch(block, h) + beside(index, h)
    return equations.classify(vit, tokens, {f"head.{key}": value for key, value in model.head.named_parameters()})


@EVERY
@pytest.mark.parametrize(("method", "literal"), [("lora", literal_lora), ("adaptformer", literal_adaptformer)])
def test_adapters(family: Family, method: str, literal: Any) -> None:
    vit, (images, labels) = tiny(family), batch(family)
    context = BuildContext(vit, CLASSES, get_method(method).settings(), lambda _: torch.empty(0), print)
    model: Any = get_method(method).build(context).model.double().eval()
    draws = generator()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(uniform(draws, *parameter.shape))
    logits = literal(vit, model, images)
    assert_close(model(images), logits, TOLERANCE, "logits")
    expected = gradients(F.cross_entropy(logits, labels), trained(model))
    assert_all_close(gradients(model.loss(images, labels), trained(model)), expected, TOLERANCE)


@EVERY
def test_an_adapter_that_changes_nothing_computes_what_timm_computes(family: Family) -> None:
    vit, (images, _) = tiny(family), batch(family)
    model = AdaptedModel(vit, CLASSES, Adapter()).double().eval()
    with torch.no_grad():
        assert_close(model(images), model.head(pooled_features(vit, images)), TOLERANCE, "logits")
