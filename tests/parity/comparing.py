"""Comparisons and optimiser steps for the parity tests."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, what: str = "value") -> None:
    """Assert equal shapes and element-wise differences of at most ``tolerance``; NaN fails."""
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)} != {tuple(expected.shape)}"
    difference = (actual.detach().double() - expected.detach().double()).abs()
    worst = difference.max().item() if difference.numel() else 0.0
    assert worst <= tolerance, f"{what}: off by {worst:.3g}, tolerance {tolerance:g}"


def assert_all_close(actual: Tensors, expected: Tensors, tolerance: float) -> None:
    """Assert equal names and close tensors."""
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert_close(actual[name], value, tolerance, name)


def leaves(values: Tensors) -> dict[str, Tensor]:
    """Copies of the tensors as leaves that require gradients."""
    return {name: value.detach().clone().requires_grad_() for name, value in values.items()}


def gradients(loss: Tensor, parameters: Tensors) -> dict[str, Tensor]:
    """d loss / d parameter for each parameter; zeros where the loss does not depend on it."""
    names = list(parameters)
    if not loss.requires_grad:
        return {name: torch.zeros_like(parameters[name]) for name in names}
    grads = torch.autograd.grad(loss, [parameters[n] for n in names], allow_unused=True, retain_graph=True)
    return {n: torch.zeros_like(parameters[n]) if g is None else g for n, g in zip(names, grads, strict=True)}


def adamw(parameters: Tensors, settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    """AdamW as in the golden ``adamw``: weight decay only on tensors of two or more dimensions."""
    decayed = [p for p in parameters.values() if p.ndim >= 2]
    others = [p for p in parameters.values() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": settings["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings["lr"], betas=(0.9, 0.999), eps=1e-8)


def sgd(parameters: Tensors, settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    """SGD as in the golden ``sgd``: weight decay on all tensors but the head's bias."""
    decayed = [p for name, p in parameters.items() if name != "head.bias"]
    groups = [
        {"params": decayed, "weight_decay": settings["weight_decay"]},
        {"params": [parameters["head.bias"]], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings["lr"], momentum=settings["momentum"])


def take_steps(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], steps: int) -> None:
    """Take ``steps`` optimiser steps on the same batch."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
