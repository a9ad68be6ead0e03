"""The baselines, loaded from official VPT checkpoints, reproduce the numbers of the official implementation."""

import pytest
import shipbench_baselines.vpt
import torch
from torch import Tensor, nn

from shipbench.errors import InputError
from tests.parity import golden
from tests.parity.adapters import build_full, build_linear, load_vpt, official_vpt_state, trained
from tests.parity.comparing import assert_all_close, assert_close, gradients, sgd, take_steps

CASES = ["shallow", "deep", "deep_proj", "linear"]
LOGITS_32, GRADIENTS_32, PARAMETERS_32, ALL_64 = 2e-5, 1e-5, 2e-5, 1e-12
FULL_GRADIENTS_32 = 2e-5  # the stored gradients differ from their float64 values by 1.5e-5


def load(variant: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    if variant in ("shallow", "deep", "deep_proj"):
        return load_vpt(variant, dtype)
    state = golden.to_dtype(official_vpt_state(variant), dtype)
    vit = golden.tiny_backbone(golden.vpt_backbone_weights(state), dtype)
    build = {"linear": build_linear, "full": build_full}[variant]
    return build(vit, golden.vpt_parameters(state))


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    stored = golden.tensors("vpt_tiny")
    return stored["images"].to(dtype), stored["labels"]


def expected(prefix: str) -> dict[str, Tensor]:
    return golden.vpt_parameters(golden.under(prefix, golden.tensors("vpt_tiny")))


@pytest.mark.parametrize("variant", [*CASES, "full"])
def test_logits_and_loss(variant: str) -> None:
    stored = golden.under(variant, golden.tensors("vpt_tiny"))
    images, labels = batch()
    model = load(variant)
    assert_close(model(images), stored["eval.logits"], LOGITS_32, "logits")
    with torch.no_grad():
        assert_close(model(images), stored["eval.logits"], LOGITS_32, "logits without gradients")
    assert_close(model.train()(images), stored["train.logits"], LOGITS_32, "training logits")
    assert_close(model.loss(images, labels), stored["train.loss"], LOGITS_32, "loss")


@pytest.mark.parametrize("variant", [*CASES, "full"])
def test_logits_and_loss_float64(variant: str) -> None:
    stored = golden.under(f"{variant}.f64", golden.tensors("vpt_tiny"))
    images, labels = batch(torch.float64)
    model = load(variant, torch.float64)
    assert_close(model(images), stored["logits"], ALL_64, "logits")
    assert_close(model.loss(images, labels), stored["loss"], ALL_64, "loss")


@pytest.mark.parametrize("variant", CASES)
@pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance"), [(torch.float32, "grad", GRADIENTS_32), (torch.float64, "f64.grad", ALL_64)]
)
def test_gradients(variant: str, dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    model = load(variant, dtype)
    computed = gradients(model.loss(*batch(dtype)), trained(model))
    assert_all_close(computed, expected(f"{variant}.{prefix}"), tolerance)


def test_gradients_of_full_fine_tuning() -> None:
    stored = golden.under("full.grad", golden.tensors("vpt_tiny"))
    model = load("full")
    computed = gradients(model.loss(*batch()), trained(model))
    head = {name: computed.pop(name) for name in list(computed) if name.startswith("head.")}
    assert_all_close(head, golden.vpt_parameters(stored), GRADIENTS_32)
    wanted = {f"backbone.{name}": value for name, value in golden.vpt_backbone_weights(stored).items()}
    assert_all_close(computed, wanted, FULL_GRADIENTS_32)


@pytest.mark.parametrize("variant", CASES)
@pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance"),
    [(torch.float32, "sgd3", PARAMETERS_32), (torch.float64, "f64.sgd3", ALL_64)],
)
def test_three_sgd_steps(variant: str, dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    images, labels = batch(dtype)
    model = load(variant, dtype).train()
    described = golden.header("vpt_tiny")["variants"][variant]["sgd"]
    take_steps(sgd(trained(model), described), lambda: model.loss(images, labels), described["steps"])
    assert_all_close(trained(model), expected(f"{variant}.{prefix}"), tolerance)


@pytest.mark.parametrize("variant", [*CASES, "full"])
def test_trained_parameter_count(variant: str) -> None:
    count = sum(parameter.numel() for parameter in trained(load(variant)).values())
    assert count == golden.header("vpt_tiny")["variants"][variant]["n_trainable"]


@pytest.mark.parametrize(
    "key",
    [
        "enc.transformer.prompt_embeddings",
        "head.last_layer.bias",
        "enc.transformer.encoder.layer.7.attn.key.weight",
        "enc.transformer.encoder.layer.3.ffn.fc1.bias",
    ],
)
def test_missing_key_is_named(key: str) -> None:
    state = official_vpt_state("deep")
    del state[key]
    with pytest.raises(InputError) as error:
        shipbench_baselines.vpt.load_official_checkpoint(state, num_heads=4)
    timm_name = key.replace("enc.transformer.encoder.layer", "blocks").replace("ffn", "mlp")
    assert key in str(error.value) or timm_name in str(error.value)


@pytest.mark.parametrize("key", ["enc.transformer.encoder.layer.7.attn.qkv.weight", "enc.transformer.other"])
def test_unexpected_key_is_named(key: str) -> None:
    with pytest.raises(InputError) as error:
        shipbench_baselines.vpt.load_official_checkpoint(
            official_vpt_state("deep") | {key: torch.zeros(48)}, num_heads=4
        )
    assert key in str(error.value)


def test_part_of_another_block_is_refused() -> None:
    unexpected = {"enc.transformer.encoder.layer.12.attn.out.bias": torch.zeros(48)}
    with pytest.raises(InputError, match=r"(layer|blocks)\.12\."):
        shipbench_baselines.vpt.load_official_checkpoint(official_vpt_state("deep") | unexpected, num_heads=4)
