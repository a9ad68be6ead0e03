"""The parts of an adapted pass: random masks, a prefix of keys and values, and the weights that a merge changes."""

from __future__ import annotations

import pytest
import torch

from shipbench.adapting import AdaptedModel, Adapter
from shipbench.adapting.merging import scale_rows
from shipbench.adapting.noise import Noise
from shipbench.errors import InputError
from shipbench.prompting.attention import project_qkv
from tests.parity.families import CLASSES, FAMILIES, tiny


def test_dropout_drops_its_rate_and_scales_what_it_keeps() -> None:
    torch.manual_seed(0)
    values = torch.ones(4000)
    dropped = Noise(training=True).dropout(values, 0.1)
    kept = dropped[dropped != 0]
    assert 0.88 < len(kept) / len(values) < 0.92
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.9))
    for noise, rate in ((Noise(training=False), 0.1), (Noise(training=True), 0.0)):
        assert noise.dropout(values, rate) is values
        assert noise.drop_path(values, rate) is values


def test_masks_are_used_in_the_order_of_the_pass() -> None:
    masks = iter([torch.tensor([1.0, 0.0]), torch.tensor([[0.0], [1.0]]), torch.ones(3)])
    noise = Noise(training=True, masks=masks)
    assert noise.dropout(torch.tensor([3.0, 3.0]), 0.25).tolist() == [4.0, 0.0]
    assert noise.drop_path(torch.full((2, 2), 3.0), 0.25).tolist() == [[0.0, 0.0], [4.0, 4.0]]
    with pytest.raises(InputError, match=r"asks for a mask \(2,\), but the next mask is \(3,\)"):
        noise.dropout(torch.ones(2), 0.5)
    with pytest.raises(InputError, match="there is no further mask"):
        noise.dropout(torch.ones(2), 0.5)


def test_a_scale_of_queries_keys_and_values_is_that_of_their_biases() -> None:
    part = "blocks.0.attn.qkv"
    weights = {f"{part}.weight": torch.ones(6, 2), "blocks.0.attn.q_bias": torch.ones(2), "other": torch.ones(2)}
    weights |= {"blocks.0.attn.v_bias": torch.ones(2)}
    scale_rows(weights, part, torch.arange(1.0, 7.0))
    assert weights[f"{part}.weight"].tolist() == [[number, number] for number in range(1, 7)]
    assert weights["blocks.0.attn.q_bias"].tolist() == [1, 2]
    assert weights["blocks.0.attn.v_bias"].tolist() == [5, 6]
    assert weights["other"].tolist() == [1, 1]


@pytest.mark.parametrize("family", ["DINOv2 with registers", "DINOv3", "PE"])
def test_a_prefix_of_keys_and_values_joins_the_softmax_as_it_is(family: str) -> None:
    model = AdaptedModel(tiny(FAMILIES[family]), CLASSES, Adapter())
    block, vit = next(model._blocks()), model.backbone
    u = torch.randn(1, vit.num_prefix_tokens + vit.patch_embed.num_patches, vit.embed_dim, dtype=torch.float64)
    _, key, value = project_qkv(block.timm.attn, u, block.positions)
    keys, values = (heads.transpose(1, 2).flatten(2) for heads in (key, value))
    # Every token attends twice to each key, in equal parts to its value and to the value plus one.
    torch.testing.assert_close(block.attend(block.qkv(u), (keys, values + 1)), block.attend(block.qkv(u)) + 0.5)


class Shifted(Adapter):
    """A merge that looks up a bias by its name."""

    def merge(self, weights: dict[str, torch.Tensor]) -> None:
        weights["blocks.0.attn.proj.bias"] = weights["blocks.0.attn.proj.bias"] + 1


def test_a_merge_that_needs_a_weight_which_the_backbone_lacks_is_refused() -> None:
    plain, without = tiny(FAMILIES["AugReg"]), tiny(FAMILIES["AIMv2"])
    shifted = AdaptedModel(plain, CLASSES, Shifted()).merged_state()["blocks.0.attn.proj.bias"]
    assert torch.equal(shifted, plain.blocks[0].attn.proj.bias + 1)
    words = r"the merged model needs a bias in blocks\.0\.attn\.proj, which this backbone does not have"
    with pytest.raises(InputError, match=words):
        AdaptedModel(without, CLASSES, Shifted()).merged_state()
