"""Residual branches on the CPU, which computes them only for images that keep them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shipbench.prompting.branch_factors import SkippingFactors

FACTORS = torch.tensor([1.25, 0.0, 1.25, 0.0, 1.25])
KEPT = FACTORS.nonzero().flatten()


def tensors(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(5, 3, 4, generator=generator).requires_grad_()
    return tokens, torch.randn(3, 3, 4, generator=generator).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_branch_of_some_images_equals_index_add_in_every_bit(dtype: torch.dtype) -> None:
    tokens, added = tensors(dtype)
    sums = SkippingFactors(FACTORS).add_branch(tokens, lambda rows, kept: added)
    expected = tokens.index_add(0, KEPT, added.to(tokens.dtype), alpha=1.25)
    assert torch.equal(sums, expected)
    upstream = torch.randn_like(sums)
    slopes = (torch.autograd.grad(out, (tokens, added), upstream) for out in (sums, expected))
    for slope, other in zip(*slopes, strict=True):
        assert torch.equal(slope, other)
        assert slope.dtype == other.dtype


def test_what_a_branch_adds_is_not_kept_for_the_backward_pass() -> None:
    tokens, added = tensors(torch.float32)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        SkippingFactors(FACTORS).add_branch(tokens.detach(), lambda rows, _: added)
    assert all(not tensor.is_floating_point() for tensor in kept)


def test_what_only_a_dropped_branch_reads_has_a_gradient_of_zero() -> None:
    # Without a gradient, an optimiser would neither decay it nor follow its momentum, as it does on a GPU.
    tokens, _ = tensors(torch.float32)
    prompts = torch.ones(4, requires_grad=True)
    sums = SkippingFactors(torch.zeros(5)).add_branch(tokens, lambda rows, kept: rows * prompts)
    assert torch.equal(sums, tokens)
    slope, of_prompts = torch.autograd.grad(sums.sum(), (tokens, prompts))
    assert torch.equal(slope, torch.ones_like(tokens))
    assert torch.equal(of_prompts, torch.zeros(4))


def test_states_are_scaled_in_float32() -> None:
    factors = SkippingFactors(torch.tensor([1 / 0.9, 0.0, 1 / 0.9]))
    tokens, branch = torch.ones(1, 2, 4), torch.full((1, 2, 4), 3.0, dtype=torch.bfloat16)
    states, owner = factors.add_to_states(tokens, branch, None)
    assert owner is not None
    assert states.unique().tolist() == pytest.approx([1.0, 1 + 3 / 0.9], rel=1e-6)
