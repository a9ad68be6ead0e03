"""Every method, loaded from its authors' tensors, reproduces the numbers of its authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shipbench_baselines import OfficialModel, load_official
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.errors import InputError
from shipbench.methods import AdaptedMethod, get_method
from shipbench.settings import configure
from tests.parity import golden
from tests.parity.comparing import assert_all_close, assert_close, take_steps

METHODS = [
    "adapter_houlsby",
    "adapter_noah",
    "adapter_pfeiffer",
    "adapter_plus",
    "adapter_vpt",
    "adaptformer",
    "bitfit",
    "convpass",
    "convpass_attn",
    "difffit",
    "fact_tk",
    "fact_tt",
    "ln_tuning",
    "lora_noah",
    "lora_peft",
    "lora_qv",
    "partial",
    "repadapter",
    "repadapter_attn",
    "ssf",
]
# Four of the methods have neither dropout nor stochastic depth in their authors' code.
IN_TRAINING = [name for name in METHODS if name not in ("bitfit", "ln_tuning", "lora_peft", "partial")]
MERGED = ["lora_peft", "repadapter", "repadapter_attn"]
SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
LOGITS = {torch.float32: 1e-5, torch.float64: 1e-12}
STEPS = {torch.float32: 5e-6, torch.float64: 1e-12}
# Adding a constant to all keys changes nothing, so these gradients are rounding noise, which Adam magnifies.
NOISE_64 = 1e-10
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def stored(method: str, kind: str = "") -> dict[str, Tensor]:
    everything = golden.tensors(f"petl/{method}")
    return golden.under(kind, everything) if kind else everything


def values(method: str, kind: str, suffix: str) -> dict[str, Tensor]:
    """The tensors ``kind.NAME.suffix`` by name."""
    entries = stored(method, kind).items()
    return {name.removesuffix(f".{suffix}"): v for name, v in entries if name.endswith(f".{suffix}")}


def load(method: str, dtype: torch.dtype, **noise: Any) -> OfficialModel:
    vit = tiny(method, dtype)
    config = golden.header(f"petl/{method}")["config"]
    return load_official(method, vit, golden.to_dtype(stored(method, "trained"), dtype), config, **noise)


def tiny(method: str, dtype: torch.dtype) -> VisionTransformer:
    vit = VisionTransformer(32, 8, num_classes=7, embed_dim=32, depth=3, num_heads=4, weight_init="skip")
    weights = stored(method, "backbone")
    absent = {"head.weight": torch.zeros(7, 32), "head.bias": torch.zeros(7)}
    vit.load_state_dict(golden.to_dtype({**absent, **weights}, torch.float32))
    return vit.to(dtype)


def batch(method: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return stored(method)["images"].to(dtype), stored(method)["labels"]


def noise_of(method: str) -> set[str]:
    return set(golden.header(f"petl/{method}")["gradient_is_rounding_noise"])


@BOTH
@pytest.mark.parametrize("method", METHODS)
def test_logits_loss_and_gradients(method: str, dtype: torch.dtype) -> None:
    model, (images, labels), suffix = load(method, dtype), batch(method, dtype), SUFFIX[dtype]
    assert_close(model(images), stored(method)[f"logits.{suffix}"], LOGITS[dtype], "logits")
    loss = model.loss(images, labels)
    assert_close(loss.reshape(1), stored(method)[f"loss.{suffix}"], LOGITS[dtype], "loss")
    loss.backward()
    assert_all_close(model.official_gradients(), values(method, "grad", suffix), LOGITS[dtype])


@BOTH
@pytest.mark.parametrize("method", METHODS)
def test_three_steps(method: str, dtype: torch.dtype) -> None:
    model, (images, labels), suffix = load(method, dtype), batch(method, dtype), SUFFIX[dtype]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decay = [{"params": [p for p in trained if p.ndim >= 2], "weight_decay": 1e-2}]
    rest = [{"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([*decay, *rest], lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    take_steps(optimizer, lambda: model.loss(images, labels), 3)
    actual, expected = model.official_tensors(), values(method, "step3", suffix)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if name in noise_of(method):
            if dtype == torch.float64:
                assert_close(actual[name], value, NOISE_64, name)
        else:
            assert_close(actual[name], value, STEPS[dtype], name)
    tolerance = LOGITS[dtype] if dtype == torch.float32 else NOISE_64
    assert_close(model(images), stored(method)[f"logits_after.{suffix}"], tolerance, "logits after three steps")


@pytest.mark.parametrize("method", IN_TRAINING)
def test_training_mode_with_its_masks(method: str) -> None:
    name = f"trainmode_{method}"
    model = load(method, torch.float64, dropout=0.1, drop_path=(0.0, 0.25, 0.5)).train()
    masks = stored(name, "mask")
    images, labels = batch(method, torch.float64)
    model.masks = iter([masks[key] for key in sorted(masks)])
    logits = model(images)
    assert next(model.masks, None) is None, "the pass asks for fewer masks than the authors' code"
    assert_close(logits, stored(name)["logits.f64"], LOGITS[torch.float64], "logits")
    model.masks = iter([masks[key] for key in sorted(masks)])
    loss = model.loss(images, labels)
    assert_close(loss.reshape(1), stored(name)["loss.f64"], LOGITS[torch.float64], "loss")
    loss.backward()
    computed, expected = model.official_gradients(), values(name, "grad", "f64")
    assert expected.keys() <= computed.keys()
    assert_all_close({key: computed[key] for key in expected}, expected, LOGITS[torch.float64])


@pytest.mark.parametrize("method", MERGED)
def test_merged_weights_of_the_authors(method: str) -> None:
    model = load(method, torch.float64)
    merged, expected = model.merged_state(), values(method, "merged", "f64")
    assert expected
    assert_all_close({name: merged[name] for name in expected}, expected, LOGITS[torch.float64])
    plain = tiny(method, torch.float64)
    plain.load_state_dict(merged)
    images, _ = batch(method, torch.float64)
    wanted = stored(method).get("logits_merged.f64", stored(method)["logits.f64"])
    assert_close(plain.eval()(images), wanted, LOGITS[torch.float64], "merged logits")


# Our settings of the golden shape, with the initialisation of the authors' code.
STARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "adapter_houlsby": ("adapter-houlsby", {"dim": 4}),
    "adapter_noah": ("adapter", {"dim": 4}),
    "adapter_pfeiffer": ("adapter-pfeiffer", {"dim": 4}),
    "adapter_plus": ("adapter-plus", {"dim": 4}),
    "adapter_vpt": ("adapter", {"dim": 4, "form": "vpt", "init": "zero"}),
    "adaptformer": ("adaptformer", {"dim": 8}),
    "convpass": ("convpass", {"dim": 8, "conv_init": "identity"}),
    "convpass_attn": ("convpass-attn", {"dim": 8, "conv_init": "identity"}),
    "difffit": ("difffit", {}),
    "fact_tk": ("fact-tk", {"rank": 4}),
    "fact_tt": ("fact-tt", {"rank": 4}),
    "lora_noah": ("lora", {"rank": 4, "init": "noah"}),
    "lora_peft": ("lora", {"rank": 4, "form": "peft"}),
    "lora_qv": ("lora", {"rank": 4, "form": "qv"}),
    "repadapter": ("repadapter", {"dim": 4}),
    "repadapter_attn": ("repadapter-attn", {"dim": 4}),
    "ssf": ("ssf", {}),
}


@pytest.mark.parametrize("method", STARTS)
def test_start_of_the_authors_code(method: str) -> None:
    """Every adapter starts with the deviation that was observed in the authors' code, up to the chance of two draws."""
    name, settings = STARTS[method]
    vit, described = tiny(method, torch.float32), get_method(name)
    assert isinstance(described, AdaptedMethod)
    torch.manual_seed(0)
    adapter = described.adapter(vit, configure(described.settings, settings))
    model = OfficialModel(vit, 7, adapter)
    observed = golden.header(f"petl/{method}")["authors_initialisation_observed"]
    compared = 0
    for official, value in model.official_tensors().items():
        if official.startswith("head.") or official in dict(vit.named_parameters()):
            continue
        expected, compared = observed[official], compared + 1
        # Five standard errors of the difference of two deviations of normal draws.
        chance = 5 * expected["std"] / value.numel() ** 0.5
        assert value.std(correction=0).item() == pytest.approx(expected["std"], abs=chance), official
        assert value.abs().max().item() <= 1.6 * expected["absmax"], official
        assert value.mean().item() == pytest.approx(expected["mean"], abs=2 * chance), official
    assert compared == len([key for key in observed if "head" not in key and key not in dict(vit.named_parameters())])


def changed(method: str) -> dict[str, Tensor]:
    return dict(golden.to_dtype(stored(method, "trained"), torch.float32))


@pytest.mark.parametrize("method", METHODS)
def test_tensors_that_do_not_fit_are_named(method: str) -> None:
    config = golden.header(f"petl/{method}")["config"]
    for name in changed(method):
        missing = changed(method)
        del missing[name]
        with pytest.raises(InputError, match=rf"{name} is missing"):
            load_official(method, tiny(method, torch.float32), missing, config)
        if "head" not in name:
            shaped = {**changed(method), name: torch.zeros(3, 3, 3, 3, 3)}
            with pytest.raises(InputError, match=rf"{name} is \(3, 3, 3, 3, 3\), expected"):
                load_official(method, tiny(method, torch.float32), shaped, config)
        for value in (float("nan"), float("inf")):
            broken = changed(method)
            broken[name] = broken[name].clone().fill_(value)
            words = rf"{name} of {method} has {broken[name].numel()} of .* values that are NaN or infinite; use intact"
            with pytest.raises(InputError, match=words):
                load_official(method, tiny(method, torch.float32), broken, config)
    surplus = {**changed(method), "blocks.3.other": torch.zeros(1)}
    with pytest.raises(InputError, match=r"blocks\.3\.other is unexpected"):
        load_official(method, tiny(method, torch.float32), surplus, config)


def test_a_configuration_without_blocks_is_that_of_the_last_one() -> None:
    tensors = golden.to_dtype(stored("partial", "trained"), torch.float64)
    model = load_official("partial", tiny("partial", torch.float64), tensors, {})
    images, _ = batch("partial", torch.float64)
    assert_close(model(images), stored("partial")["logits.f64"], LOGITS[torch.float64], "logits")


def test_rates_of_stochastic_depth_rise_to_that_of_the_last_block() -> None:
    assert load("ssf", torch.float64, drop_path=0.3).path_rates == pytest.approx([0, 0.15, 0.3])
    assert load("ssf", torch.float64, drop_path=[0.2, 0.0, 0.1]).path_rates == (0.2, 0.0, 0.1)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ((0.1, 0.2), "drop_path has 2 rates, but the backbone has 3 blocks"),
        (1.0, r"drop_path is 1\.0; a rate must be 0 or more, and below 1"),
        ((0.0, -0.1, 0.2), r"drop_path is \(0\.0, -0\.1, 0\.2\); a rate must be 0 or more"),
        (float("nan"), "drop_path is nan; a rate must be 0 or more"),
    ],
)
def test_rates_of_stochastic_depth_that_are_impossible_are_refused(rates: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load("ssf", torch.float64, drop_path=rates)
