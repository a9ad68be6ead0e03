"""The attention that is read is the attention that the model computes."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from torch import Tensor, nn

from shipbench.errors import InputError
from shipbench.explaining.features import final_features
from shipbench.explaining.figures import feature_colours
from shipbench.explaining.reading import prompted_attention, read_blocks
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import BuildContext, get_method
from shipbench.methods.ship import Ship, ShipConfig
from shipbench.prompting import embed
from shipbench.prompting.forward import BlockInput
from shipbench.prompting.interface import AttentionRule
from shipbench.prompting.streams import Stream
from shipbench.training.inputs import FeatureInputs
from tests.parity.families import FAMILIES, tiny
from tests.reference import vit as equations


@pytest.fixture
def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=0, img_size=64, reg_tokens=2).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def ship(vit: nn.Module) -> Ship:
    config = ShipConfig(prompt_length=2, shared_length=3, attribute_length=2, attribute_levels=1)
    depth = len(vit.blocks)
    return Ship(vit, 4, [0, depth - 1], torch.randn(5, vit.embed_dim), config).eval()


def attention_weights(block: nn.Module, tokens: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) (B, H, N, N) of a timm block, from its fused projection alone."""
    normed, attention = block.norm1(tokens), block.attn
    query, key, _ = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in attention.qkv(normed).chunk(3, dim=-1)
    )
    return (query @ key.transpose(-2, -1) / key.shape[-1] ** 0.5).softmax(dim=-1)


@torch.no_grad()
def test_a_plain_vit_is_read_as_it_computes(vit: nn.Module, images: Tensor) -> None:
    views = read_blocks(vit, images, vit, "the frozen backbone")
    tokens = embed(vit, images)
    for block, view in zip(vit.blocks, views, strict=True):
        torch.testing.assert_close(view.attention, attention_weights(block, tokens).mean(dim=1)[:, 0, 3:])
        tokens = block(tokens)
        torch.testing.assert_close(view.patches, tokens[:, 3:])
        assert (dict(view.prompts), view.guiding) == ({}, None)


@torch.no_grad()
def test_prompts_of_vpt_share_one_softmax_with_the_image(vit: nn.Module, images: Tensor) -> None:
    model = Vpt(vit, 4, VptConfig(prompt_length=5), deep=True).eval()
    views = read_blocks(model, images, vit, "vpt-deep")
    tokens = embed(vit, images)
    for index, (block, view) in enumerate(zip(vit.blocks, views, strict=True)):
        prompts = model.prompts.tokens[index].expand(len(images), -1, -1)
        whole = torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1)
        weights = attention_weights(block, whole).mean(dim=1)[:, 0]
        torch.testing.assert_close(view.attention, weights[:, 8:])
        torch.testing.assert_close(view.prompts["prompts"], weights[:, 1:6].sum(dim=1))
        out = block(whole)
        tokens = torch.cat([out[:, :1], out[:, 6:]], dim=1)
        torch.testing.assert_close(view.patches, tokens[:, 3:])


@torch.no_grad()
def test_decoupled_prompts_receive_the_scale_and_the_view_ends_in_the_logits(vit: nn.Module, images: Tensor) -> None:
    model = ship(vit)
    views = read_blocks(model, images, vit, "ship")
    assert [set(view.prompts) for view in views] == [
        *[{"independent", "shared"}] * (len(views) - 1),
        {"independent", "shared", "attribute"},
    ]
    for view in views:
        torch.testing.assert_close(sum(view.prompts.values()), torch.full((3,), model.config.attention_scale))
    traced = model.traced(images)
    torch.testing.assert_close(model.head(vit.fc_norm(vit.norm(traced.tokens[:, 0]))), model(images))
    expected = model.trace(images).selected_indices[len(views) - 1]
    assert views[-2].guiding is not None
    assert torch.equal(views[-2].guiding, (expected - 3).clamp(min=-1))
    assert views[-1].guiding is None


@torch.no_grad()
def test_decoupled_attention_mixes_two_softmaxes(vit: nn.Module) -> None:
    block, tokens, prompts = vit.blocks[0], torch.randn(2, 6, vit.embed_dim), torch.randn(1, 4, vit.embed_dim)
    entering = BlockInput(tokens, (Stream("shared", prompts[:, :1]), Stream("independent", prompts[:, 1:])))
    image, shares = prompted_attention(block.attn, block.norm1, entering, AttentionRule(scale=0.3))
    whole = torch.cat([tokens, prompts.expand(2, -1, -1)], dim=1)
    joint = attention_weights(block, whole)[:, :, 0]
    apart = [part / part.sum(dim=-1, keepdim=True) for part in joint.split([6, 4], dim=-1)]
    torch.testing.assert_close(image, 0.7 * apart[0].mean(dim=1))
    torch.testing.assert_close(shares["shared"], 0.3 * apart[1].mean(dim=1)[:, 0])
    torch.testing.assert_close(shares["independent"], 0.3 * apart[1].mean(dim=1)[:, 1:].sum(dim=1))


@pytest.mark.parametrize("name", ["linear", "lora", "adaptformer", "ssf", "convpass", "bitfit", "full"])
def test_adapters_of_the_zoo_are_read_and_end_in_their_head(vit: nn.Module, images: Tensor, name: str) -> None:
    method = get_method(name)
    context = BuildContext(vit, 4, method.settings(), lambda kind: torch.empty(0), lambda text: None)
    model = method.build(context).model.eval()
    views = read_blocks(model, images, vit, name)
    assert [view.attention.shape for view in views] == [(3, 16)] * len(vit.blocks)
    assert all(0.5 < float(view.attention.sum(dim=1).mean()) < 1 for view in views)
    if name == "linear":
        torch.testing.assert_close(views[-1].attention, read_blocks(vit, images, vit, "")[-1].attention)


def test_a_distilled_vit_is_read_where_it_calls_timm(images: Tensor) -> None:
    sizes = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}
    vit = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=0, **sizes).eval()
    views = read_blocks(vit, images, vit, "the frozen backbone")
    with torch.no_grad():
        tokens = vit._pos_embed(vit.patch_embed(images))
        expected = attention_weights(vit.blocks[0], tokens).mean(dim=1)[:, 0, 2:]
    torch.testing.assert_close(views[0].attention, expected)


@pytest.fixture(params=["DINOv3", "EVA-02", "EVA-02 CLIP"])
def rotary(request: pytest.FixtureRequest) -> nn.Module:
    return tiny(FAMILIES[request.param]).float()


def cropped(images: Tensor, backbone: nn.Module) -> Tensor:
    height, width = backbone.patch_embed.img_size
    return images[..., :height, :width]


@torch.no_grad()
@pytest.mark.parametrize("name", ["linear", "lora"])
def test_keys_of_patches_turn_by_their_positions(rotary: nn.Module, images: Tensor, name: str) -> None:
    method, images = get_method(name), cropped(images, rotary)
    context = BuildContext(rotary, 4, method.settings(), lambda kind: torch.empty(0), lambda text: None)
    views = read_blocks(method.build(context).model.eval(), images, rotary, name)
    tokens, angles = equations.embed(rotary, images), equations.angles_of(rotary)
    for block, view in zip(rotary.blocks, views, strict=True):
        query, key, _ = equations.queries_keys_values(block.attn, block.norm1(tokens), angles)
        weights = equations.attention_logits(query, key).softmax(dim=-1).mean(dim=1)[:, 0]
        torch.testing.assert_close(view.attention, weights[:, rotary.num_prefix_tokens :])
        tokens = block(tokens, rope=rotary.rope.get_embed(rotary.patch_embed.grid_size))


@torch.no_grad()
def test_prompts_do_not_turn(rotary: nn.Module, images: Tensor) -> None:
    model = Vpt(rotary, 4, VptConfig(prompt_length=3), deep=True).eval()
    view = read_blocks(model, cropped(images, rotary), rotary, "vpt-deep")[0]
    block, angles = rotary.blocks[0], equations.angles_of(rotary)
    tokens = equations.embed(rotary, cropped(images, rotary))
    whole = torch.cat([tokens, model.prompts.tokens[0].expand(len(tokens), -1, -1)], dim=1)
    query, key, _ = equations.queries_keys_values(block.attn, block.norm1(whole), equations.unturned(3, angles))
    weights = equations.attention_logits(query, key).softmax(dim=-1).mean(dim=1)[:, 0]
    torch.testing.assert_close(view.attention, weights[:, rotary.num_prefix_tokens : -3])
    torch.testing.assert_close(view.prompts["prompts"], weights[:, -3:].sum(dim=1))


def test_attention_that_is_not_computed_by_timm_is_refused_in_a_sentence(vit: nn.Module, images: Tensor) -> None:
    class Blind(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean(dim=(2, 3))

    with pytest.raises(InputError, match=r"the attention of blind cannot be read: .*; --features works for it"):
        read_blocks(Blind(), images, vit, "blind")
    pooled = timm.create_model("test_vit2", num_classes=0, img_size=64)
    with pytest.raises(InputError, match="the ViT has no class token, whose attention would be drawn; --features"):
        read_blocks(pooled, images, pooled, "linear")


def test_final_features_are_what_the_head_reads(vit: nn.Module, images: Tensor) -> None:
    model = ship(vit)
    compute = ComputeContext(torch.device("cpu"), "fp32")
    features = final_features(model, FeatureInputs(images, torch.zeros(3, dtype=torch.long)), compute, "ship")
    assert features.shape == (3, vit.embed_dim)
    with torch.no_grad():
        torch.testing.assert_close(model.head(features), model(images))
    with pytest.raises(InputError, match="odd has no module called head"):
        final_features(nn.Linear(2, 2), FeatureInputs(images, torch.zeros(3)), compute, "odd")


def test_features_of_a_model_that_does_not_call_its_head_are_those_of_its_readout(
    vit: nn.Module, images: Tensor
) -> None:
    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = vit, nn.Linear(vit.embed_dim, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.features(images) @ self.head.weight.T

    class Frozen(Cosine):
        readout = nn.Identity()

        def features(self, images: Tensor) -> Tensor:
            return self.backbone.forward_head(self.backbone.forward_features(images), pre_logits=True)

    labels, compute = torch.zeros(3, dtype=torch.long), ComputeContext(torch.device("cpu"), "fp32")
    inputs = FeatureInputs(images, labels)
    features = final_features(Frozen(), inputs, compute, "cosine")
    with torch.no_grad():
        torch.testing.assert_close(features, Frozen().features(images))
    Cosine.features = lambda self, images: images.mean(dim=(2, 3)) @ torch.ones(3, vit.embed_dim)  # type: ignore
    with pytest.raises(InputError, match="cosine computes without calling its head"):
        final_features(Cosine(), inputs, compute, "cosine")


def test_equal_features_have_equal_colours_across_two_models() -> None:
    patches, others = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(2))
    one, other = feature_colours([patches, torch.cat([others[:8], patches[:8]])])
    assert one.shape == (16, 3)
    assert abs(one[:8] - other[8:]).max() < 1e-9
    assert np.concatenate([one, other]).min(axis=0).tolist() == [0, 0, 0]
    assert np.concatenate([one, other]).max(axis=0).tolist() == [1, 1, 1]
