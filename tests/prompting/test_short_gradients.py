"""Functions with short gradients in a static pass equal PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from shipbench.prompting import static
from shipbench.prompting.short_gradients import mix, unit


@pytest.fixture(autouse=True)
def static_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "is_static", lambda device: True)


def test_unit_vectors_and_their_gradient() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(4, 3, 6, dtype=torch.float64) * torch.logspace(-5, 5, 4, dtype=torch.float64).view(-1, 1, 1)
    vectors[1, 2] = 0
    vectors.requires_grad_()
    ours, expected, upstream = unit(vectors), F.normalize(vectors, dim=-1), torch.randn(4, 3, 6, dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=1e-14, atol=0)
    slopes = [torch.autograd.grad(out, vectors, upstream)[0] for out in (ours, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-11, atol=1e-18)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trained", [(True, True), (False, True)])
def test_mixtures_equal_lerp_in_every_bit(trained: tuple[bool, bool], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(5, 7).to(dtype).requires_grad_(needed) for needed in trained]
    ours, expected, upstream = mix(*parts, 0.1), torch.lerp(*parts, 0.1), torch.randn(5, 7).to(dtype)
    assert torch.equal(ours, expected)
    needed = [part for part in parts if part.requires_grad]
    slopes = (torch.autograd.grad(out, needed, upstream) for out in (ours, expected))
    assert all(torch.equal(slope, other) for slope, other in zip(*slopes, strict=True))


def test_a_trained_weight_gets_a_gradient() -> None:
    torch.manual_seed(0)
    weight = torch.tensor(0.1, requires_grad=True)
    first, second = torch.randn(2, 5, 7)
    mix(first, second, weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, (second - first).sum())


def test_gradients_are_the_same_under_autocast() -> None:
    torch.manual_seed(0)
    first, second = (torch.randn(5, 7).bfloat16().requires_grad_() for _ in range(2))
    upstream = torch.randn(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        out = unit(mix(first, second, 0.1).float())
        within = torch.autograd.grad(out, (first, second), upstream, retain_graph=True)
    outside = torch.autograd.grad(out, (first, second), upstream)
    assert all(torch.equal(slope, other) for slope, other in zip(within, outside, strict=True))
