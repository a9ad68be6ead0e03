"""Products in bf16 on a CPU without instructions for bf16 are those of torch."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.hardware import precision
from shipbench.hardware.precision import ComputeContext
from shipbench.hardware.products import ProductsInFp32
from shipbench.methods import get_method
from tests.methods.test_peft import IMAGES, LABELS, built

CPU = torch.device("cpu")
BF16 = ComputeContext(CPU, "bf16")


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.bfloat16).requires_grad_()


def attention() -> tuple[Tensor, ...]:
    query, key, value = drawn(2, 3, 7, 8), drawn(2, 3, 7, 8), drawn(2, 3, 7, 8)
    return F.scaled_dot_product_attention(query, key, value), query, key, value


def linear() -> tuple[Tensor, ...]:
    inputs, weight, bias = drawn(3, 5, 8), drawn(6, 8), drawn(6)
    return F.linear(inputs, weight, bias), inputs, weight, bias


def convolution() -> tuple[Tensor, ...]:
    inputs, weight, bias = drawn(2, 3, 9, 9), drawn(4, 3, 3, 3), drawn(4)
    return F.conv2d(inputs, weight, bias, stride=2), inputs, weight, bias


def batched() -> tuple[Tensor, ...]:
    left, right = drawn(4, 5, 6), drawn(4, 6, 3)
    return torch.bmm(left, right), left, right


def added() -> tuple[Tensor, ...]:
    total, left, right = drawn(4, 5, 3), drawn(4, 5, 6), drawn(4, 6, 3)
    return torch.baddbmm(total, left, right, alpha=0.5), total, left, right


OPERATIONS: list[Callable[[], tuple[Tensor, ...]]] = [attention, linear, convolution, batched, added]


def with_gradients(operation: Callable[[], tuple[Tensor, ...]], context: Any) -> list[Tensor]:
    torch.manual_seed(0)
    with context:
        result, *operands = operation()
        return [result.detach(), *torch.autograd.grad(result.float().square().sum(), operands)]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_results_and_gradients_are_those_of_torch_up_to_rounding(operation: Callable[[], tuple[Tensor, ...]]) -> None:
    expected = with_gradients(operation, nullcontext())
    actual = with_gradients(operation, ProductsInFp32())
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype == torch.bfloat16
        # Two neighbours in bf16 differ by 0.8 percent; attention rounds its probabilities too.
        assert (ours - theirs).float().norm() <= 0.01 * theirs.float().norm()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_that_arrive_whole_in_inference_mode_are_split(operation: Callable[[], tuple[Tensor, ...]]) -> None:
    widths: list[torch.dtype] = []

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(name in str(func) for name in ("mm", "conv", "attention")):
                widths.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    with Watched(), torch.inference_mode():
        torch.manual_seed(0)
        with ProductsInFp32():
            result = operation()[0]
    assert widths == [torch.float32]
    assert result.dtype == torch.bfloat16


def test_products_in_fp32_are_left_as_they_are() -> None:
    left, right = torch.randn(4, 5), torch.randn(5, 6)
    with ProductsInFp32():
        assert torch.equal(left @ right, torch.mm(left, right))


def test_a_cpu_without_instructions_multiplies_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(precision, "_has_bf16", lambda device: False)
    assert isinstance(BF16.products(), ProductsInFp32)
    assert isinstance(ComputeContext(CPU, "fp32").products(), nullcontext)
    assert isinstance(ComputeContext(torch.device("cuda"), "bf16").products(), nullcontext)
    monkeypatch.setattr(precision, "_has_bf16", lambda device: True)
    assert isinstance(BF16.products(), nullcontext)
    assert isinstance(BF16.autocast(), torch.autocast)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(precision, "_has_bf16", lambda device: False)
    assert isinstance(BF16.products(), nullcontext)


@pytest.mark.parametrize("name", ["vpt-deep", "full", "lora", "peft-boft"])
def test_a_step_of_a_method_is_the_same_up_to_rounding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def step() -> list[Tensor]:
        torch.manual_seed(0)
        model = built(name).model.train()
        cast_frozen_weights(model, BF16)
        with BF16.autocast():
            loss = model.loss(IMAGES, LABELS)
        with BF16.products():
            loss.backward()
        return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    assert get_method(name).name == name
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(precision, "_has_bf16", lambda device: True)
    expected = step()
    monkeypatch.setattr(precision, "_has_bf16", lambda device: False)
    for ours, theirs in zip(step(), expected, strict=True):
        assert (ours - theirs).norm() <= 0.05 * theirs.norm() + 1e-5
