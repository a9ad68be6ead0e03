"""The layers of timm's MLPs: plain (``Mlp``), gated with one first layer (``GluMlp``) or with two (``SwiGLU``)."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import GluMlp, SwiGLU
from torch import Tensor


def hidden_width(mlp: Any) -> int:
    """Return the number of hidden values of an MLP, gates included."""
    return int(2 * mlp.fc1_x.out_features if isinstance(mlp, SwiGLU) else mlp.fc1.out_features)


def hidden_values(mlp: Any, u: Tensor) -> Tensor:
    """Return the hidden values (B, N, hidden width) of the MLP's input; ``SwiGLU`` has its gates in front."""
    return torch.cat([mlp.fc1_g(u), mlp.fc1_x(u)], dim=-1) if isinstance(mlp, SwiGLU) else mlp.fc1(u)


def activated(mlp: Any, hidden: Tensor) -> Tensor:
    """Return act(hidden values), or hidden values times act(gates)."""
    if not isinstance(mlp, (GluMlp, SwiGLU)):
        return mlp.act(hidden)
    first, second = hidden.chunk(2, dim=-1)
    return first * mlp.act(second) if getattr(mlp, "gate_last", False) else mlp.act(first) * second
