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
