"""Attention to prompts that all, some or none of the images share: written out, and in the fused kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shipbench.backbones import load_backbone
from shipbench.hardware.flops import count_flops
from shipbench.hardware.precision import ComputeContext
from shipbench.methods.ship import Ship, ShipConfig
from shipbench.methods.ship.model import matching_loss
from shipbench.prompting import PassOutput, attention, kernels, written_out
from shipbench.prompting.attention import attend_to_prompts, cls_scores

BATCH, HEADS, LENGTH, PROMPTS, WIDTH = 6, 3, 5, 7, 8
SHARES = [1, 2, 3, 6]


def tensors(states: int, projected: bool, dtype: torch.dtype) -> list[Tensor]:
    """Queries, and keys and values in ``states`` states, in the memory layout of their projection or head by head."""
    generator = torch.Generator().manual_seed(states)
    query, *others = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((BATCH, HEADS, LENGTH, WIDTH), *2 * [(states, HEADS, PROMPTS, WIDTH)])
    )
    drawn = [query, *others]
    if projected:
        drawn = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in drawn]
    return [tensor.to(dtype).requires_grad_() for tensor in drawn]


def literal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    key, value = (states.repeat_interleave(BATCH // len(states), dim=0) for states in (key, value))
    return torch.softmax(query @ key.transpose(2, 3) * WIDTH**-0.5, dim=-1) @ value


@pytest.mark.parametrize("images_per_chunk", [1, 2, 4, 1000])
@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("states", SHARES)
def test_written_out_attention_equals_the_formula(
    states: int, projected: bool, images_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written_out, "_CHUNK_SIZE", images_per_chunk * HEADS * WIDTH * PROMPTS)
    monkeypatch.delattr(torch.nn.functional, "scaled_dot_product_attention")
    assert_formula(tensors(states, projected, torch.float64))


def assert_formula(inputs: list[Tensor]) -> None:
    upstream = torch.randn(BATCH, HEADS, LENGTH, WIDTH, dtype=torch.float64)
    ours, formula = attend_to_prompts(*inputs), literal(*inputs)
    torch.testing.assert_close(ours, formula, rtol=1e-12, atol=1e-12)
    slopes = (torch.autograd.grad(out, inputs, upstream) for out in (ours, formula))
    for slope, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("projected", [True, False])
def test_many_keys_shared_by_all_images_use_the_fused_kernel(projected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_FEW_KEYS", PROMPTS - 1)
    monkeypatch.delattr(attention, "attend_in_products")
    assert_formula(tensors(1, projected, torch.float64))


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("states", SHARES)
def test_bf16_agrees_up_to_rounding(states: int, projected: bool) -> None:
    inputs = tensors(states, projected, torch.bfloat16)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    upstream = torch.randn(BATCH, HEADS, LENGTH, WIDTH).bfloat16()
    ours, formula = attend_to_prompts(*inputs), literal(*exact)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), formula, rtol=0.02, atol=0.02)
    slopes = torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(formula, exact, upstream.double())
    for slope, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(slope.double(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("images_per_chunk", [2, 1000])
@pytest.mark.parametrize("states", SHARES)
def test_bf16_is_rounded_once_and_keeps_only_its_operands(
    states: int, images_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written_out, "_CHUNK_SIZE", images_per_chunk * HEADS * WIDTH * PROMPTS)
    inputs = tensors(states, True, torch.bfloat16)
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    upstream = torch.randn(BATCH, HEADS, LENGTH, WIDTH).bfloat16()
    kept: list[int] = []
    with (
        ComputeContext(torch.device("cpu"), "bf16").autocast(),
        torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.data_ptr()), t)[1], lambda t: t),
    ):
        rounded = attend_to_prompts(*inputs)
    assert set(kept) == {tensor.data_ptr() for tensor in inputs}
    whole = attend_to_prompts(*exact)
    assert torch.equal(rounded, whole.bfloat16())
    slopes = torch.autograd.grad(rounded, inputs, upstream, True), torch.autograd.grad(whole, exact, upstream.float())
    for slope, expected in zip(*slopes, strict=True):
        assert torch.equal(slope, expected.bfloat16())
    # Gradients may be computed under autocast, too.
    with ComputeContext(torch.device("cpu"), "bf16").autocast():
        again = torch.autograd.grad(rounded, inputs, upstream)
    assert all(torch.equal(slope, other) for slope, other in zip(again, slopes[0], strict=True))


@pytest.mark.parametrize("states", SHARES)
def test_its_flops_are_counted(states: int) -> None:
    inputs = tensors(states, True, torch.float32)
    products = 2 * BATCH * HEADS * LENGTH * PROMPTS * WIDTH
    assert count_flops(lambda: attend_to_prompts(*inputs)) == 2 * products
    # Backward: the probabilities again, then the gradients of probabilities, queries, keys and values.
    assert count_flops(lambda: attend_to_prompts(*inputs).sum().backward()) == 7 * products
    inputs[0].requires_grad_(False)
    assert count_flops(lambda: attend_to_prompts(*inputs).sum().backward()) == 6 * products


def test_cls_scores_and_the_matching_loss_are_not_rounded_to_bf16() -> None:
    frozen = load_backbone("test_vit", checkpoint="random", image_size=32).blocks[0].attn
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, frozen.num_heads, n, frozen.head_dim, generator=generator) for n in (1, 500))
    near = torch.randn(2, 9, 64, generator=generator)
    output = PassOutput(near[:, 0], near, near + 0.02 * torch.randn(near.shape, generator=generator))
    half = [tensor.bfloat16() for tensor in (query, key)]
    rounded = [tensor.float() for tensor in half]
    loss = matching_loss(output)
    with ComputeContext(torch.device("cpu"), "bf16").autocast():
        assert torch.equal(cls_scores(frozen, *half), cls_scores(frozen, *rounded))
        assert len(cls_scores(frozen, *half)[0].unique()) == 500
        assert matching_loss(output) == loss


def test_ship_in_bf16_equals_ship_in_fp32_up_to_rounding() -> None:
    torch.manual_seed(0)
    backbone = load_backbone("vit_tiny_patch16_224", checkpoint="random", image_size=64, drop_path=0.1)
    bank = torch.randn(4, backbone.embed_dim)
    model = Ship(backbone, 5, [0, 3, 6, 9], bank, ShipConfig(prompt_length=4, prototypes=4)).train()
    images, labels = torch.randn(6, 3, 64, 64), torch.tensor([0, 1, 2, 3, 4, 0])
    losses, slopes = {}, {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(1)
        model.zero_grad(set_to_none=True)
        with ComputeContext(torch.device("cpu"), precision).autocast():
            loss = model.loss(images, labels)
        loss.backward()
        losses[precision] = float(loss.detach())
        slopes[precision] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.01)
    similarity = torch.cosine_similarity(slopes["bf16"], slopes["fp32"], dim=0)
    assert similarity > 0.99, similarity
