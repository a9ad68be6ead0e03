"""Elementary functions whose gradients take few operations in a static pass, and are PyTorch's own otherwise.

On a GPU, the gradient of a normalisation or of a mixture is a chain of small operations, each of which is launched.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from shipbench.prompting import static

# That of F.normalize.
_SHORTEST = 1e-12


def unit(vectors: Tensor) -> Tensor:
    """Return ``vectors`` (..., D) divided by their length, or by 1e-12 if they are shorter."""
    if not static.is_static(vectors.device):
        return F.normalize(vectors, dim=-1)
    scaled: Tensor = _Unit.apply(vectors)
    return scaled


def mix(first: Tensor, second: Tensor, weight: float | Tensor) -> Tensor:
    """Return (1 - weight) * first + weight * second, of equal shapes; a tensor ``weight`` is broadcast."""
    if isinstance(weight, Tensor) or not static.is_static(first.device):
        return torch.lerp(first, second, weight)
    mixed: Tensor = _Mix.apply(first, second, weight)
    return mixed


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min(_SHORTEST)
        scaled = vectors / length
        ctx.save_for_backward(scaled, length)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        scaled, length = ctx.saved_tensors
        along = (grad * scaled).sum(dim=-1, keepdim=True)
        return torch.addcmul(grad, scaled, along, value=-1) / length


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return torch.lerp(first, second, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, grad * ctx.weight, None
        # One launch for both.
        to_first, to_second = torch._foreach_mul([grad, grad], [1 - ctx.weight, ctx.weight])
        return to_first, to_second, None
