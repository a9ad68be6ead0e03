"""Every setting of every adapter equals its literal computation, in evaluation and over three training steps."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import GluMlp, SwiGLU, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import AdaptedModel
from shipbench.methods import AdaptedMethod, BuildContext, get_method
from shipbench.recipe import Recipe
from shipbench.settings import configure
from shipbench.training.loop import make_optimizer
from tests.parity.comparing import assert_all_close, assert_close, gradients, leaves
from tests.reference import adapted as literal
from tests.reference.tiny import random_like, uniform

TOLERANCE, STEPS = 1e-12, 1e-10
CLASSES = 3
SHAPE = literal.Vit(width=16, depth=2, heads=2, patch=4, grid=(3, 2))
RATES = [0.25, 0.5]

LORA: list[dict[str, Any]] = [
    {"rank": 5, "scale": 0.3, "dropout": 0.3},
    {"rank": 3, "form": "peft", "alpha": 5.0, "dropout": 0.2},
    {"rank": 2, "form": "qv", "scale": 1.7, "dropout": 0.25},
    *({"rank": 3, name: False} for name in ("at_query", "at_key", "at_value")),
    {"form": "peft", "rank": 4, "alpha": 2.0, "at_query": False, "at_value": False},
    *({"form": "qv", "rank": 3, "scale": 0.6, name: False} for name in ("at_query", "at_value")),
    {"at_query": False, "at_key": False, "at_value": False},
]
ADAPTFORMER: list[dict[str, Any]] = [
    {"dim": 5, "scale": 0.7, "dropout": 0.3},
    {"dim": 3, "learned_scale": True},
    {"dim": 3, "activation": False},
    {"placement": "serial", "scale": 2.0},
    {"placement": "serial", "learned_scale": True, "activation": False, "dropout": 0.5},
]
SSF: list[dict[str, Any]] = [
    {},
    *({name: False} for name in ("scales", "shifts", "at_patches", "at_norms", "at_attention", "at_mlp")),
    {"scales": False, "at_norms": False},
    {"shifts": False, "at_patches": False},
]
CONVPASS: list[dict[str, Any]] = [
    {"dim": 3, "scale": 0.4, "dropout": 0.3},
    *({"dim": 5, "scale": 10.0, name: False} for name in ("at_attention", "at_mlp", "convolution", "activation")),
    {"convolution": False, "activation": False, "scale": 0.4},
]
FACT: list[dict[str, Any]] = [
    {"rank": 3, "scale": 0.4, "dropout": 0.3},
    *({"rank": 5, "scale": 10.0, name: False} for name in ("at_attention", "at_mlp", "shared_factors")),
    {"rank": 2, "shared_factors": False, "at_attention": False},
    {"rank": 2, "at_attention": False, "at_mlp": False},
]
REPADAPTER: list[dict[str, Any]] = [
    {"dim": 6, "scale": 0.4, "dropout": 0.3},
    {"dim": 4, "groups": 4, "scale": 5.0},
    {"dim": 3, "groups": 1},
    *({"dim": 4, "scale": 0.4, name: False} for name in ("at_attention", "at_mlp", "biases")),
    {"dim": 4, "groups": 1, "biases": False, "scale": 5.0},
]
SERIAL: list[dict[str, Any]] = [
    {"dim": 5, "form": "noah", "dropout": 0.3},
    {"dim": 5, "form": "vpt"},
    *({"dim": 3, "form": form, "activation": False} for form in ("noah", "vpt")),
]
HOULSBY: list[dict[str, Any]] = [
    {"dim": 5, "scale": 0.4, "adapter_drop_path": 0.4},
    *({"dim": 3, "scale": 3.0, name: False} for name in ("at_attention", "at_mlp", "activation", "train_norms")),
    {"scale": 0.4, "activation": False, "adapter_drop_path": 0.0},
]
PFEIFFER: list[dict[str, Any]] = [
    {"dim": 5, "scale": 0.4, "adapter_drop_path": 0.4},
    *({"dim": 3, "scale": 3.0, name: False} for name in ("reads_residual", "norm", "activation")),
    {"scale": 0.4, "reads_residual": False, "norm": False, "adapter_drop_path": 0.0},
]
ADAPTER_PLUS: list[dict[str, Any]] = [
    {"dim": 5, "adapter_drop_path": 0.4},
    {"dim": 3, "scaling": "layer"},
    {"dim": 3, "scaling": "none", "adapter_drop_path": 0.4},
    *({"dim": 3, name: False} for name in ("reads_residual", "activation")),
    {"scaling": "layer", "reads_residual": False, "activation": False, "adapter_drop_path": 0.0},
]
BITFIT: list[dict[str, Any]] = [{name: False} for name in ("at_patches", "at_norms", "at_attention", "at_mlp")]
LN_TUNING: list[dict[str, Any]] = [{name: False} for name in ("weights", "biases", "final_norm")]
DIFFFIT: list[dict[str, Any]] = [{}, *({name: False} for name in ("gammas", "norms", "biases"))]
PARTIAL: list[dict[str, Any]] = [{}, {"blocks": 2}, {"final_norm": False}, {"blocks": 2, "final_norm": False}]
SETTINGS = {
    "lora": LORA,
    "adaptformer": ADAPTFORMER,
    "ssf": SSF,
    "convpass": CONVPASS,
    "convpass-attn": [{"dim": 3, "scale": 2.0}, {"at_mlp": True, "at_attention": False}],
    "fact-tt": FACT,
    "fact-tk": FACT,
    "repadapter": REPADAPTER,
    "repadapter-attn": [{"dim": 8, "groups": 4, "scale": 2.0}, {"at_mlp": True, "at_attention": False}],
    "adapter": SERIAL,
    "adapter-houlsby": HOULSBY,
    "adapter-pfeiffer": PFEIFFER,
    "adapter-plus": ADAPTER_PLUS,
    "bitfit": [{}, *BITFIT],
    "ln-tuning": [{}, *LN_TUNING],
    "difffit": DIFFFIT,
    "partial": PARTIAL,
}
NORMED = {"scale_mlp_norm": True, "scale_attn_norm": True}
# MLPs by the half of the hidden values that is the gate, and how timm builds them.
MLPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": ("", {}),
    "plain, normed": ("", NORMED),
    "packed": ("first", {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}),
    "packed, gate last": ("last", {"mlp_layer": GluMlp, "act_layer": nn.SiLU, "scale_mlp_norm": True}),
    "separate, normed": ("first", {"mlp_layer": SwiGLU, "act_layer": nn.SiLU, **NORMED}),
}
PLAIN = [(name, settings, "plain") for name, variants in SETTINGS.items() for settings in variants]
# FacT has no equation for gated MLPs.
GATED = [
    (name, {"rank": 3, "at_mlp": False} if name.startswith("fact") else {}, mlp)
    for name in SETTINGS
    for mlp, (gate, _) in MLPS.items()
    if gate and not name.endswith("-attn")
]
CASES = [*PLAIN, ("ssf", {}, "plain, normed"), *GATED]


def named(case: object) -> str:
    if not isinstance(case, dict):
        return str(case)
    return "-".join(f"{key}={value}" for key, value in case.items()) or "default"


every_case = pytest.mark.parametrize(("name", "settings", "mlp"), CASES, ids=named)


def shape(mlp: str) -> literal.Vit:
    return dataclasses.replace(SHAPE, gate=MLPS[mlp][0])


def backbone(mlp: str = "plain") -> VisionTransformer:
    """A backbone of random weights on a grid that is no square, whose MLP is three times its width."""
    size = (SHAPE.grid[0] * SHAPE.patch, SHAPE.grid[1] * SHAPE.patch)
    sizes = {"embed_dim": SHAPE.width, "depth": SHAPE.depth, "num_heads": SHAPE.heads, "mlp_ratio": 3}
    vit = VisionTransformer(size, SHAPE.patch, num_classes=0, **sizes, **MLPS[mlp][1])
    vit, generator = vit.double().eval(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            parameter.copy_(random_like(name, parameter, generator))
    return vit


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    rows, columns = (SHAPE.patch * count for count in SHAPE.grid)
    return uniform(generator, 5, 3, rows, columns), torch.randint(CLASSES, (5,), generator=generator)


def build(name: str, settings: Mapping[str, Any], mlp: str = "plain") -> tuple[AdaptedModel, Any]:
    """A model whose trained tensors are all random, and its settings."""
    method, vit = get_method(name), backbone(mlp)
    assert isinstance(method, AdaptedMethod)
    chosen = configure(method.settings, settings)
    model = AdaptedModel(vit, CLASSES, method.adapter(vit, chosen), path_rates=RATES).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(uniform(generator, *parameter.shape, bound=0.6))
    return model.eval(), chosen


def trains(name: str, settings: Any, key: str) -> bool:
    """Whether a tensor of the whole model trains, by its name."""
    if not key.startswith("backbone."):
        return True
    *_, part, kind = key.split(".")
    norm, attention, mlp = part.startswith("norm"), ".attn." in key, ".mlp." in key
    if name == "bitfit":
        included = settings.at_norms if norm else settings.at_patches
        included = settings.at_attention if attention else settings.at_mlp if mlp else included
        return kind == "bias" and included
    if name == "ln-tuning":
        kept = settings.final_norm or key.startswith("backbone.blocks.")
        return norm and kept and (settings.weights if kind == "weight" else settings.biases)
    if name == "difffit":
        return (norm and settings.norms) or (kind == "bias" and settings.biases)
    if name == "partial":
        last = [f"backbone.blocks.{SHAPE.depth - count}." for count in range(1, settings.blocks + 1)]
        return key.startswith(tuple(last)) or (settings.final_norm and key.startswith("backbone.norm."))
    return name == "adapter-houlsby" and settings.train_norms and norm


@every_case
def test_logits_and_merged_weights(name: str, settings: dict[str, Any], mlp: str) -> None:
    (model, chosen), (images, _) = build(name, settings, mlp), batch()
    tensors = dict(model.named_parameters())
    expected = literal.logits(name, shape(mlp), tensors, chosen, images, literal.Masks(), RATES)
    assert_close(model(images), expected, TOLERANCE, "logits")
    if get_method(name).mergeable:
        merged = copy.deepcopy(model.backbone)
        merged.reset_classifier(CLASSES)
        merged.double().load_state_dict(model.merged_state())
        assert_close(merged(images), expected, TOLERANCE, "merged logits")


@every_case
def test_three_training_steps(name: str, settings: dict[str, Any], mlp: str) -> None:
    (model, chosen), (images, labels) = build(name, settings, mlp), batch()
    recipe = Recipe(lr=1e-2, weight_decay=0.1)
    tensors = {key: value.detach().clone() for key, value in model.named_parameters()}
    trained = leaves({key: value for key, value in tensors.items() if trains(name, chosen, key)})
    groups = [
        {"params": [value for value in trained.values() if value.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [value for value in trained.values() if value.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers = [make_optimizer(model.train(), recipe), torch.optim.AdamW(groups, lr=recipe.lr)]
    for step in range(3):
        masks = literal.Masks(torch.Generator().manual_seed(step))
        logits = literal.logits(name, shape(mlp), tensors | trained, chosen, images, masks, RATES)
        expected = F.cross_entropy(logits, labels)
        model.masks = iter(masks.drawn)
        loss = model.loss(images, labels)
        assert next(model.masks, None) is None, "the literal pass asks for more masks"
        assert_close(loss, expected, STEPS, "loss")
        ours = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
        slopes = gradients(expected, trained)
        assert_all_close(gradients(loss, ours), slopes, STEPS)
        for values, optimizer in zip((ours, trained), optimizers, strict=True):
            for key, value in values.items():
                value.grad = slopes[key]
            optimizer.step()
        assert_all_close(ours, trained, STEPS)


def size(name: str, s: Any) -> int:
    """The number of trained numbers beside the head: D wide, L blocks, an MLP of 3 D, n hidden units or ranks."""
    width, depth, slices = SHAPE.width, SHAPE.depth, 3
    sites = getattr(s, "at_attention", True) + getattr(s, "at_mlp", True)
    n = getattr(s, "dim", getattr(s, "rank", 0))
    bottleneck = 2 * width * n + n + width
    norms, block = (2 * depth + 1) * width, (4 + 2 * slices) * width**2 + (9 + slices) * width
    biases = {"at_patches": width, "at_norms": norms, "at_attention": 4 * depth * width}
    biases["at_mlp"] = (slices + 1) * depth * width
    if name == "lora":
        changed = s.at_query + s.at_value + (s.at_key and s.form != "qv")
        return depth * width * n * (2 * changed if s.form == "qv" else changed + 1 if changed else 0)
    if name == "adaptformer":
        return depth * (bottleneck + s.learned_scale)
    if name == "ssf":
        values = biases | {"at_attention": 4 * depth * width, "at_mlp": (slices + 1) * depth * width}
        return (s.scales + s.shifts) * sum(value for site, value in values.items() if getattr(s, site))
    if name.startswith("convpass"):
        return depth * sites * (bottleneck + s.convolution * (9 * n * n + n))
    if name.startswith("fact"):
        pieces = 4 * s.at_attention + 2 * slices * s.at_mlp
        cores = depth * pieces * n * n if name == "fact-tt" else n**3 + n * pieces * depth
        return (cores + 2 * width * n * (1 if s.shared_factors else depth)) if pieces else 0
    if name.startswith("repadapter"):
        return depth * sites * (width * n + width * n // s.groups + s.biases * (n + width))
    if name == "adapter-houlsby":
        return depth * sites * bottleneck + 2 * norms * s.train_norms
    if name == "bitfit":
        return sum(value for site, value in biases.items() if getattr(s, site))
    if name == "ln-tuning":
        return (s.weights + s.biases) * (norms - (0 if s.final_norm else width))
    if name == "difffit":
        shifts = sum(biases.values()) if s.biases else norms * s.norms
        return 2 * depth * width * s.gammas + norms * s.norms + shifts
    if name == "partial":
        return s.blocks * block + 2 * width * s.final_norm
    scales = {"channel": width, "layer": 1, "none": 0}[s.scaling] if name == "adapter-plus" else 0
    return depth * (bottleneck + scales + (2 * width if name == "adapter-pfeiffer" and s.norm else 0))


@pytest.mark.parametrize(("name", "settings"), [case[:2] for case in PLAIN], ids=named)
def test_trained_parameters(name: str, settings: dict[str, Any]) -> None:
    model, chosen = build(name, settings)
    trained = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(value.numel() for key, value in trained.items() if not key.startswith("head.")) == size(name, chosen)


def uniform_within(bound: float) -> tuple[float, float, float]:
    """The mean, the deviation and the largest absolute value of a uniform distribution."""
    return 0.0, bound / 3**0.5, bound


NORMAL, CUT, ZERO, ONE = (0.0, 0.02, 0.1), (0.0, 0.0088, 0.02), (0.0, 0.0, 0.0), (1.0, 0.0, 1.0)
# 24 hidden units or ranks in a backbone of width 16 and depth 2: 1 / sqrt(16) bounds what starts as a linear layer.
LINEAR, XAVIER = uniform_within(0.25), uniform_within((6 / 40) ** 0.5)
STARTS: list[tuple[str, dict[str, Any], dict[str, tuple[float, float, float]]]] = [
    ("lora", {"form": "peft", "alpha": 2.0}, {"lora.1.a": LINEAR, "lora.1.b": ZERO}),
    ("lora", {"form": "qv"}, {"lora_q.1.a": LINEAR, "lora_v.0.a": LINEAR, "lora_q.0.b": ZERO, "lora_v.1.b": ZERO}),
    ("lora", {"form": "qv", "init": "noah"}, {"lora_q.0.a": NORMAL, "lora_v.0.a": NORMAL, "lora_v.1.b": NORMAL}),
    ("lora", {"init": "noah", "at_key": False}, {"lora.1.a": NORMAL, "lora.0.b": NORMAL}),
    ("adaptformer", {"learned_scale": True}, {"scale.0": ONE, "scale.1": ONE, "adaptformer.1.down.weight": LINEAR}),
    ("adaptformer", {"placement": "serial"}, {"adaptformer.1.down.bias": ZERO, "adaptformer.0.up.weight": ZERO}),
    (
        "convpass",
        {},
        {"convpass_attn.1.conv.weight": uniform_within((6 / 432) ** 0.5), "convpass_mlp.0.up.weight": ZERO},
    ),
    ("convpass", {"convolution": False}, {"convpass_attn.0.down.weight": XAVIER, "convpass_mlp.1.up.bias": ZERO}),
    ("fact-tt", {"shared_factors": False}, {"u": LINEAR, "v": ZERO, "core_k.1": uniform_within(24**-0.5)}),
    (
        "fact-tt",
        {"at_attention": False},
        {"core_fc1.0": uniform_within(24**-0.5), "core_fc2.1": uniform_within(72**-0.5)},
    ),
    ("fact-tk", {"shared_factors": False}, {"u": LINEAR, "v": ZERO, "p": uniform_within((6 / 44) ** 0.5)}),
    ("fact-tk", {"at_mlp": False}, {"c": uniform_within((6 / 1152) ** 0.5), "p": uniform_within((6 / 32) ** 0.5)}),
    ("repadapter", {"groups": 4}, {"repadapter_mlp.1.a.weight": XAVIER, "repadapter_mlp.0.b.weight": ZERO}),
    ("repadapter", {"biases": False}, {"repadapter_attn.1.a.weight": XAVIER, "repadapter_attn.0.b.weight": ZERO}),
    ("adapter", {"init": "zero_up"}, {"adapter.1.down.weight": NORMAL, "adapter.1.up.weight": ZERO}),
    ("adapter", {"form": "vpt"}, {"adapter.0.down.weight": NORMAL, "adapter.1.up.weight": NORMAL}),
    ("adapter", {"init": "zero"}, {"adapter.1.down.weight": ZERO, "adapter.0.up.weight": ZERO}),
    ("adapter-houlsby", {"at_attention": False}, {"adapter.1.down.weight": CUT, "adapter.1.up.weight": CUT}),
    (
        "adapter-pfeiffer",
        {},
        {"adapter.1.down.weight": NORMAL, "adapter.0.norm.weight": ONE, "adapter.0.norm.bias": ZERO},
    ),
    ("adapter-plus", {"scaling": "layer"}, {"adapter.1.scale": ONE, "adapter.0.up.weight": CUT}),
    ("adapter-plus", {"scaling": "channel"}, {"adapter.1.scale": ONE, "adapter.1.down.weight": CUT}),
    ("ssf", {"scales": False}, {"ssf_fc1.1.shift": NORMAL, "ssf_norm.shift": NORMAL}),
    ("ssf", {"shifts": False}, {"ssf_qkv.0.scale": (1.0, 0.02, 1.1)}),
    ("difffit", {"norms": False}, {"gamma1.1": ONE, "gamma2.0": ONE}),
]


@pytest.mark.parametrize(("name", "settings", "starts"), STARTS, ids=[f"{case[0]}-{named(case[1])}" for case in STARTS])
def test_starts(name: str, settings: dict[str, Any], starts: dict[str, tuple[float, float, float]]) -> None:
    method = get_method(name)
    assert isinstance(method, AdaptedMethod)
    wide = {key: 24 for key in ("dim", "rank") if hasattr(method.settings(), key)}
    torch.manual_seed(0)
    adapter = method.adapter(backbone(), configure(method.settings, {**wide, **settings}))
    for key, (mean, deviation, largest) in starts.items():
        values = adapter.get_parameter(key).detach()
        chance = 4 * deviation / values.numel() ** 0.5
        assert values.mean().item() == pytest.approx(mean, abs=chance + 1e-9), key
        assert values.std(correction=0).item() == pytest.approx(deviation, abs=chance), key
        assert values.abs().max().item() <= largest + 1e-6, key


@pytest.mark.parametrize("name", ["convpass", "convpass-attn"])
def test_a_convolution_may_start_as_the_identity(name: str) -> None:
    method = get_method(name)
    assert isinstance(method, AdaptedMethod)
    adapter = method.adapter(backbone(), configure(method.settings, {"dim": 5, "conv_init": "identity"}))
    expected = torch.zeros(5, 5, 3, 3)
    for channel in range(5):
        expected[channel, channel, 1, 1] = 1
    weights = {key: value for key, value in adapter.named_parameters() if key.endswith("conv.weight")}
    assert len(weights) == SHAPE.depth * (2 if name == "convpass" else 1)
    assert all(torch.equal(value, expected) for value in weights.values())


@pytest.mark.parametrize("name", SETTINGS)
def test_the_head_and_the_rates_of_stochastic_depth(name: str) -> None:
    method, vit = get_method(name), VisionTransformer(8, 4, num_classes=0, embed_dim=128, depth=3, num_heads=2)
    assert isinstance(method, AdaptedMethod)
    deep = VisionTransformer(8, 4, num_classes=0, embed_dim=128, depth=3, num_heads=2, drop_path_rate=0.4)
    torch.manual_seed(0)
    for backbone, rates in ((vit, [0, 0, 0]), (deep, [0, 0.2, 0.4])):
        context = BuildContext(backbone, 50, method.settings(), lambda kind: torch.empty(0), print)
        model = method.build(context).model
        assert isinstance(model, AdaptedModel)
        assert model.path_rates == pytest.approx(rates)
        assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not model.head.bias.any()
