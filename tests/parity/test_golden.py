"""``Ship``, loaded from official checkpoints, reproduces the numbers of the official implementation."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from shipbench.errors import InputError
from shipbench.methods.ship import Ship, load_official_checkpoint
from tests.parity import golden
from tests.parity.adapters import load_ship, trained
from tests.parity.comparing import adamw, assert_all_close, assert_close, gradients, take_steps

CASES = ["ship_tiny", "ship_tiny_c"]
LOGITS_32, GRADIENTS_32, PARAMETERS_32, ALL_64 = 2e-5, 1e-5, 2e-5, 1e-12
TOKENS_32 = 1e-4  # the residual stream reaches 20: rounding alone is 3e-5


def batch(name: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    stored = golden.tensors(name)
    return stored["images"].to(dtype), stored["labels"]


def expected(name: str, prefix: str) -> dict[str, Tensor]:
    return golden.ship_parameters(golden.under(prefix, golden.tensors(name)))


def official_state() -> dict[str, Tensor]:
    return golden.under("state", golden.tensors("ship_tiny"))


def load(state: dict[str, Tensor] | Path) -> Ship:
    bank = golden.tensors("ship_tiny")["feature_bank"]
    return load_official_checkpoint(state, levels=[0, 2, 4, 6, 8, 11], prototypes=bank, num_heads=4)


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str) -> None:
    images, _ = batch(name)
    assert_close(load_ship(name)(images), golden.tensors(name)["eval.logits"], LOGITS_32)


@pytest.mark.parametrize("name", CASES)
def test_logits_without_gradients_and_in_training_mode(name: str) -> None:
    images, _ = batch(name)
    model = load_ship(name)
    with torch.no_grad():
        first, second = model(images), model(images)
    assert_close(first, golden.tensors(name)["eval.logits"], LOGITS_32)
    assert torch.equal(first, second)
    assert_close(model.train()(images), golden.tensors(name)["train.logits"], LOGITS_32)


@pytest.mark.parametrize("name", CASES)
def test_cls_token_of_every_block(name: str) -> None:
    images, _ = batch(name)
    stored = golden.tensors(name)
    block_cls = load_ship(name).trace(images).block_cls
    assert len(block_cls) == 12
    for index, token in enumerate(block_cls):
        assert_close(token, stored[f"eval.block_cls.{index:02d}"], TOKENS_32, f"block {index}")


@pytest.mark.parametrize("name", CASES)
def test_selected_tokens(name: str) -> None:
    """Golden ``ap.*.tokens`` are the final attribute prompts; the selected tokens are rows of a block's output."""
    images, _ = batch(name)
    stored = golden.tensors(name)
    trace = load_ship(name).trace(images)
    blocks = golden.header(name)["config"]["attribute_layers"]
    assert sorted(trace.selected_indices) == sorted(trace.selected_tokens) == blocks
    for block in blocks:
        indices = stored[f"ap.layer{block:02d}.topk_indices"]
        assert torch.equal(trace.selected_indices[block], indices)
        assert trace.selected_tokens[block].shape == (len(images), 10, 48)
        previous = stored.get(f"eval.block_tokens_sample0.{block - 1:02d}")
        if previous is not None:
            assert_close(trace.selected_tokens[block][0], previous[indices[0]], TOKENS_32, f"block {block}")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("training", [False, True])
def test_losses_and_gradients_float32(name: str, training: bool) -> None:
    images, labels = batch(name)
    stored = golden.under("train", golden.tensors(name))
    model = load_ship(name).train(training)
    terms = model.loss_terms(images, labels)
    assert_close(terms.logits, stored["logits"], LOGITS_32, "logits")
    assert_close(terms.cross_entropy, stored["ce"], LOGITS_32, "cross-entropy")
    assert_close(terms.matching, stored["matching_loss"], LOGITS_32, "matching")
    assert_close(terms.total, stored["loss"], LOGITS_32, "total")
    assert_close(model.loss(images, labels), stored["loss"], LOGITS_32, "loss")
    assert_all_close(gradients(terms.total, trained(model)), expected(name, "grad"), GRADIENTS_32)
    assert_all_close(gradients(terms.cross_entropy, trained(model)), expected(name, "grad_ce"), GRADIENTS_32)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_matching_alone(name: str) -> None:
    model = load_ship(name)
    computed = gradients(model.loss_terms(*batch(name)).matching, trained(model))
    assert not computed.pop("head.weight").any()
    assert not computed.pop("head.bias").any()
    assert_all_close(computed, expected(name, "grad_ml"), GRADIENTS_32)


@pytest.mark.parametrize("name", CASES)
def test_float64(name: str) -> None:
    images, labels = batch(name, torch.float64)
    stored = golden.under("f64", golden.tensors(name))
    model = load_ship(name, torch.float64)
    terms = model.loss_terms(images, labels)
    assert_close(model(images), stored["logits"], ALL_64, "evaluation logits")
    assert_close(terms.logits, stored["logits"], ALL_64, "training logits")
    assert_close(terms.cross_entropy, stored["ce"], ALL_64, "cross-entropy")
    assert_close(terms.matching, stored["matching_loss"], ALL_64, "matching")
    assert_close(terms.total, stored["loss"], ALL_64, "total")
    assert_all_close(gradients(terms.total, trained(model)), expected(name, "f64.grad"), ALL_64)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance"),
    [(torch.float32, "adamw3", PARAMETERS_32), (torch.float64, "f64.adamw3", ALL_64)],
)
def test_three_adamw_steps(name: str, dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    images, labels = batch(name, dtype)
    model = load_ship(name, dtype).train()
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    described = golden.header(name)["adamw"]
    take_steps(adamw(trained(model), described), lambda: model.loss(images, labels), described["steps"])
    assert_all_close(trained(model), expected(name, prefix), tolerance)
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    if dtype == torch.float32:
        with torch.no_grad():
            logits = model.eval()(images)
        assert_close(logits, golden.tensors(name)["adamw3_eval.logits"], LOGITS_32)


def test_stochastic_depth_with_golden_masks() -> None:
    stored = golden.under("droppath", golden.tensors("ship_tiny"))
    model = load_ship("ship_tiny").train()
    terms = model.loss_terms(*batch("ship_tiny"), drop_factors=stored["factors_block_branch_sample"])
    assert_close(terms.logits, stored["logits"], LOGITS_32, "logits")
    assert_close(terms.cross_entropy, stored["ce"], LOGITS_32, "cross-entropy")
    assert_close(terms.matching, stored["matching_loss"], LOGITS_32, "matching")
    assert_close(terms.total, stored["loss"], LOGITS_32, "loss")
    computed = gradients(terms.total, trained(model))
    assert_all_close(computed, expected("ship_tiny", "droppath.grad"), GRADIENTS_32)


@pytest.mark.parametrize("name", CASES)
def test_only_prompts_and_head_are_trained(name: str) -> None:
    model = load_ship(name)
    assert set(trained(model)) == set(expected(name, "grad"))
    unused = golden.tensors(name)[f"state.{golden.SHIP_UNUSED}"].numel()
    count = sum(parameter.numel() for parameter in trained(model).values())
    assert count + unused == golden.header(name)["n_trainable"]


def test_checkpoint_is_read_from_a_file(tmp_path: Path) -> None:
    images, _ = batch("ship_tiny")
    torch.save(official_state(), tmp_path / "checkpoint.pth")
    assert torch.equal(load(tmp_path / "checkpoint.pth")(images), load(official_state())(images))


def test_official_state_is_not_changed_by_loading() -> None:
    state = official_state()
    before = set(state)
    load(state)
    assert set(state) == before


def test_unused_position_embedding_may_be_absent() -> None:
    state = official_state()
    del state[golden.SHIP_UNUSED]
    load(state)


@pytest.mark.parametrize(
    "key",
    [
        "semantic_share_prompt",
        "attribute_prompt",
        "compound_prompts_visual.3",
        "head.bias",
        "norm.weight",
        "blocks.7.attn.k.weight",
        "blocks.2.mlp.fc1.bias",
    ],
)
def test_missing_key_is_named(key: str) -> None:
    state = official_state()
    del state[key]
    with pytest.raises(InputError, match=key.replace(".", r"\.")):
        load(state)


def test_every_missing_key_is_named() -> None:
    state = official_state()
    for key in ("norm.weight", "blocks.7.attn.k.weight", "attribute_prompt"):
        del state[key]
    with pytest.raises(InputError) as error:
        load(state)
    assert all(key in str(error.value) for key in ("norm.weight", "blocks.7.attn.k.weight", "attribute_prompt"))


@pytest.mark.parametrize("key", ["blocks.7.attn.qkv.weight", "blocks.7.attn.gate.weight", "compound_prompts_visual.6"])
def test_unexpected_key_is_named(key: str) -> None:
    with pytest.raises(InputError, match=key.replace(".", r"\.")):
        load(official_state() | {key: torch.zeros(48)})


def test_part_of_another_block_is_refused() -> None:
    with pytest.raises(InputError, match=r"blocks\.12\."):
        load(official_state() | {"blocks.12.norm1.weight": torch.zeros(48)})
