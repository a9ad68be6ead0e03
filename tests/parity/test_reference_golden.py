"""The literal references reproduce the official implementations' numbers, which qualifies them as references."""

from dataclasses import dataclass

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tests.parity import golden
from tests.parity.comparing import (
    adamw,
    assert_all_close,
    assert_close,
    gradients,
    leaves,
    sgd,
    take_steps,
)
from tests.reference import ship, vpt
from tests.reference.vit import embed

SHIP_CASES = ["ship_tiny", "ship_tiny_c"]
VPT_CASES = ["shallow", "deep", "deep_proj", "linear"]
LOGITS_32, GRADIENTS_32, PARAMETERS_32, ALL_64 = 2e-5, 1e-5, 2e-5, 1e-12
TOKENS_32 = 1e-4  # the residual stream and its attention logits reach 20: rounding alone is 3e-5


@dataclass(frozen=True)
class ShipCase:
    vit: VisionTransformer
    parameters: dict[str, Tensor]
    settings: ship.Settings
    images: Tensor
    labels: Tensor
    bank: Tensor

    def run(self, drop_factors: Tensor | None = None) -> ship.Result:
        return ship.forward(
            self.vit,
            self.parameters,
            self.settings,
            self.images,
            self.labels,
            bank=self.bank,
            drop_factors=drop_factors,
        )


def ship_case(name: str, dtype: torch.dtype = torch.float32) -> ShipCase:
    everything = golden.to_dtype(golden.tensors(name), dtype)
    state = golden.under("state", everything)
    return ShipCase(
        vit=golden.tiny_backbone(golden.ship_backbone_weights(state), dtype),
        parameters=leaves(golden.ship_parameters(state)),
        settings=ship.Settings(levels=tuple(golden.header(name)["config"]["visual_prompt_indices"])),
        images=everything["images"],
        labels=everything["labels"],
        bank=everything["feature_bank"],
    )


def expected_ship(name: str, prefix: str) -> dict[str, Tensor]:
    return golden.ship_parameters(golden.under(prefix, golden.tensors(name)))


@pytest.mark.parametrize("name", SHIP_CASES)
def test_ship_backbone_is_read_correctly(name: str) -> None:
    stored = golden.tensors(name)
    case = ship_case(name)
    tokens = embed(case.vit, case.images)
    assert_close(tokens[:, :4], stored["frozen.embedded_cls_and_first_patches"], LOGITS_32)
    for index, block in enumerate(case.vit.blocks):
        tokens = block(tokens)
        assert_close(tokens[:, 0], stored[f"frozen.block_cls.{index:02d}"], TOKENS_32)
    assert_close(case.vit.norm(tokens)[:, 0], stored["frozen.final_norm_cls"], LOGITS_32)


@pytest.mark.parametrize("name", SHIP_CASES)
def test_ship_tokens_of_every_block(name: str) -> None:
    stored = golden.tensors(name)
    result = ship_case(name).run()
    assert_close(result.logits, stored["eval.logits"], LOGITS_32, "logits")
    for index, block in enumerate(result.blocks):
        assert list(block.tokens.shape) == golden.header(name)["eval_block_output_shapes"][index]
        assert_close(block.tokens[:, 0], stored[f"eval.block_cls.{index:02d}"], TOKENS_32)
        sample = stored.get(f"eval.block_tokens_sample0.{index:02d}")
        if sample is not None:
            assert_close(block.tokens[0], sample, TOKENS_32, f"tokens of block {index}")
    assert_close(result.blocks[-1].class_logits, stored["eval.cls_attn_last"], TOKENS_32, "last CLS logits")


@pytest.mark.parametrize("name", SHIP_CASES)
def test_ship_attribute_prompts(name: str) -> None:
    stored = golden.tensors(name)
    result = ship_case(name).run()
    assert list(result.attribute) == golden.header(name)["config"]["attribute_layers"]
    for index, attribute in result.attribute.items():
        of_layer = golden.under(f"ap.layer{index:02d}", stored)
        class_logits = result.blocks[index - 1].class_logits
        assert_close(class_logits, of_layer["cls_attn_logits_headmean"], TOKENS_32, "CLS logits")
        assert torch.equal(attribute.selection.indices, of_layer["topk_indices"])
        assert_close(attribute.tokens, of_layer["tokens"], LOGITS_32, "attribute prompts")


@pytest.mark.parametrize("name", SHIP_CASES)
def test_ship_matching_costs(name: str) -> None:
    stored = golden.tensors(name)
    result = ship_case(name).run()
    selected = ship.select(result.blocks[-1], 10)
    assert torch.equal(selected.indices.sort().values, stored["ml.topk_indices"].sort().values)
    assert_close(result.matching_costs, stored["ml.cost_per_prompt"], LOGITS_32, "cost per prompt")


@pytest.mark.parametrize("name", SHIP_CASES)
def test_ship_losses_and_gradients_float32(name: str) -> None:
    stored = golden.tensors(name)
    case = ship_case(name)
    result = case.run()
    assert_close(result.logits, stored["train.logits"], LOGITS_32, "logits")
    assert_close(result.cross_entropy, stored["train.ce"], LOGITS_32, "cross-entropy")
    assert_close(result.matching, stored["train.matching_loss"], LOGITS_32, "matching")
    assert_close(result.loss, stored["train.loss"], LOGITS_32, "loss")
    assert_all_close(gradients(result.loss, case.parameters), expected_ship(name, "grad"), GRADIENTS_32)
    of_ce = gradients(result.cross_entropy, case.parameters)
    assert_all_close(of_ce, expected_ship(name, "grad_ce"), GRADIENTS_32)


@pytest.mark.parametrize("name", SHIP_CASES)
def test_ship_gradients_of_matching_alone(name: str) -> None:
    case = ship_case(name)
    computed = gradients(case.run().matching, case.parameters)
    expected = expected_ship(name, "grad_ml")
    untouched = {n: computed.pop(n) for n in list(computed) if n.startswith("head.")}
    assert not any(value.any() for value in untouched.values())
    assert_all_close(computed, expected, GRADIENTS_32)


@pytest.mark.parametrize("name", SHIP_CASES)
def test_ship_float64(name: str) -> None:
    stored = golden.under("f64", golden.tensors(name))
    case = ship_case(name, torch.float64)
    result = case.run()
    assert_close(result.logits, stored["logits"], ALL_64, "logits")
    assert_close(result.cross_entropy, stored["ce"], ALL_64, "cross-entropy")
    assert_close(result.matching, stored["matching_loss"], ALL_64, "matching")
    assert_close(result.loss, stored["loss"], ALL_64, "loss")
    assert_all_close(gradients(result.loss, case.parameters), expected_ship(name, "f64.grad"), ALL_64)


@pytest.mark.parametrize("name", SHIP_CASES)
@pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance"),
    [(torch.float32, "adamw3", PARAMETERS_32), (torch.float64, "f64.adamw3", ALL_64)],
)
def test_ship_three_adamw_steps(name: str, dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    case = ship_case(name, dtype)
    described = golden.header(name)["adamw"]
    take_steps(adamw(case.parameters, described), lambda: case.run().loss, described["steps"])
    assert_all_close(case.parameters, expected_ship(name, prefix), tolerance)
    if dtype == torch.float32:
        assert_close(case.run().logits, golden.tensors(name)["adamw3_eval.logits"], LOGITS_32)


def test_ship_stochastic_depth_with_golden_masks() -> None:
    stored = golden.under("droppath", golden.tensors("ship_tiny"))
    case = ship_case("ship_tiny")
    result = case.run(stored["factors_block_branch_sample"])
    assert_close(result.logits, stored["logits"], LOGITS_32, "logits")
    assert_close(result.cross_entropy, stored["ce"], LOGITS_32, "cross-entropy")
    assert_close(result.matching, stored["matching_loss"], LOGITS_32, "matching")
    assert_close(result.loss, stored["loss"], LOGITS_32, "loss")
    expected = expected_ship("ship_tiny", "droppath.grad")
    assert_all_close(gradients(result.loss, case.parameters), expected, GRADIENTS_32)


@pytest.mark.parametrize("task", ["cifar100", "clevr_count"])
def test_guide_is_nearly_the_mean_of_the_authors_banks(task: str) -> None:
    """With the prototypes as tokens, the guide has the length that the golden summary states for the bank."""
    import numpy as np

    with np.load(golden.golden_file("prototypes_f16.npz")) as stored:
        bank = torch.from_numpy(stored[task].astype("float64"))
    expected = golden.header("ship_behaviour")["bank_share_of_attribute_prompt"][task]
    guided = ship.guide(bank[None], bank, temperature=1.0)[0]
    length = 0.1 * guided.norm(dim=-1).mean()
    assert length.item() == pytest.approx(expected["norm_0p1_pattern"], rel=1e-3)
    direction = torch.cosine_similarity(guided, bank.mean(0, keepdim=True)).mean()
    assert direction.item() == pytest.approx(expected["cos_pattern_bank_mean"], abs=1e-4)


@dataclass(frozen=True)
class VptCase:
    vit: VisionTransformer
    parameters: dict[str, Tensor]
    images: Tensor
    labels: Tensor

    def run(self) -> vpt.Result:
        return vpt.forward(self.vit, self.parameters, self.images, self.labels)


def vpt_case(variant: str, dtype: torch.dtype = torch.float32) -> VptCase:
    everything = golden.to_dtype(golden.tensors("vpt_tiny"), dtype)
    return VptCase(
        vit=golden.tiny_backbone(golden.vpt_backbone_weights(golden.under("backbone", everything)), dtype),
        parameters=leaves(golden.vpt_parameters(golden.under(f"{variant}.state", everything))),
        images=everything["images"],
        labels=everything["labels"],
    )


def expected_vpt(prefix: str) -> dict[str, Tensor]:
    return golden.vpt_parameters(golden.under(prefix, golden.tensors("vpt_tiny")))


@pytest.mark.parametrize("variant", [*VPT_CASES, "full"])
def test_vpt_tokens_of_every_block(variant: str) -> None:
    stored = golden.under(variant, golden.tensors("vpt_tiny"))
    result = vpt_case(variant).run()
    assert_close(result.logits, stored["eval.logits"], LOGITS_32, "logits")
    assert_close(torch.stack(result.block_cls), stored["eval.block_cls"], TOKENS_32, "CLS of every block")
    for index in (0, 1, 11):
        assert_close(result.block_tokens[index][0], stored[f"eval.block_tokens_sample0.{index:02d}"], TOKENS_32)


@pytest.mark.parametrize("variant", VPT_CASES)
def test_vpt_loss_and_gradients(variant: str) -> None:
    stored = golden.under(variant, golden.tensors("vpt_tiny"))
    case = vpt_case(variant)
    result = case.run()
    assert_close(result.loss, stored["train.loss"], LOGITS_32, "loss")
    assert_all_close(gradients(result.loss, case.parameters), expected_vpt(f"{variant}.grad"), GRADIENTS_32)
    case = vpt_case(variant, torch.float64)
    result = case.run()
    assert_close(result.logits, stored["f64.logits"], ALL_64, "logits")
    assert_close(result.loss, stored["f64.loss"], ALL_64, "loss")
    assert_all_close(gradients(result.loss, case.parameters), expected_vpt(f"{variant}.f64.grad"), ALL_64)


@pytest.mark.parametrize("variant", VPT_CASES)
@pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance"),
    [(torch.float32, "sgd3", PARAMETERS_32), (torch.float64, "f64.sgd3", ALL_64)],
)
def test_vpt_three_sgd_steps(variant: str, dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    case = vpt_case(variant, dtype)
    described = golden.header("vpt_tiny")["variants"][variant]["sgd"]
    take_steps(sgd(case.parameters, described), lambda: case.run().loss, described["steps"])
    assert_all_close(case.parameters, expected_vpt(f"{variant}.{prefix}"), tolerance)


def test_full_fine_tuning_gradients() -> None:
    case = vpt_case("full")
    stored = golden.under("full.grad", golden.tensors("vpt_tiny"))
    frozen = {name: parameter.requires_grad_() for name, parameter in case.vit.named_parameters()}
    loss = case.run().loss
    assert_all_close(gradients(loss, frozen), golden.vpt_backbone_weights(stored), 2e-5)
    assert_all_close(gradients(loss, case.parameters), golden.vpt_parameters(stored), GRADIENTS_32)
