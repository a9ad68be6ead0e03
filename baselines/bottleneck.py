"""The bottleneck that serial and parallel adapters share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

Activation: TypeAlias = Callable[[Tensor], Tensor]


class Bottleneck(nn.Module):
    """``down`` (width to dim), ``act``, and ``up`` (dim to width), both with biases, which start at zero.

    Without ``activation``, the bottleneck is linear.
    """

    def __init__(self, width: int, dim: int, act: Activation, *, activation: bool = True) -> None:
        super().__init__()
        self.act = act if activation else identity
        self.down = nn.Linear(width, dim)
        self.up = nn.Linear(dim, width)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)

    def hidden(self, values: Tensor) -> Tensor:
        """Return act(down(values)), (B, N, dim)."""
        return self.act(self.down(values))

    def draw(self, std: float, cut: float) -> Bottleneck:
        """Draw both weights from a normal distribution of deviation ``std``, truncated at +-``cut``; return self."""
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=std, a=-cut, b=cut)
        return self


def bias_of(convolution: nn.Conv1d | nn.Conv2d) -> Tensor:
    """Return the bias of a convolution that was built with one."""
    assert convolution.bias is not None
    return convolution.bias


def identity(values: Tensor) -> Tensor:
    """Return the values themselves."""
    return values


def quick_gelu(values: Tensor) -> Tensor:
    """Return t sigmoid(1.702 t), the activation of CLIP."""
    return values * (1.702 * values).sigmoid()
