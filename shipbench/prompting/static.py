"""The static pass: the same operations and shapes in every step, whichever images drop which branch.

A GPU needs it: a step whose operations change can neither be captured as a CUDA graph nor compiled once, and indexing
by mask costs a GPU more than the work that it saves. A CPU skips the branches that images drop. Both compute the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shipbench.prompting.full_precision import at_least_float32, full_precision


def is_static(device: torch.device) -> bool:
    """Return whether passes on ``device`` are static. Nothing else makes this choice."""
    return device.type != "cpu"


def one_hot(indices: Tensor, count: int) -> Tensor:
    """Return the one-hot rows (..., count), bool, of ``indices`` (...), each from 0 to ``count`` - 1."""
    return indices.unsqueeze(-1) == torch.arange(count, device=indices.device)


def select_rows(hot: Tensor, rows: Tensor) -> Tensor:
    """Return the rows (G, R, ...) of ``rows`` (G, N, ...) that the one-hot ``hot`` (G, R, N) selects, group by group.

    It is a matrix product in the type of ``rows``, also under autocast, so every selected value is exact. Its gradient
    is one matrix product too, whereas the gradient of indexing adds in an arbitrary order, or sorts first.
    """
    with full_precision(rows.device):
        return torch.bmm(hot.to(rows.dtype), rows.flatten(2)).unflatten(2, rows.shape[2:])


def take_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """Gather ``tokens`` (B, N, D) at ``indices`` (B, R) along the token axis: (B, R, D).

    In a static pass, the result has at least float32 precision.
    """
    images, length, _ = tokens.shape
    if is_static(tokens.device):
        return select_rows(one_hot(indices, length), at_least_float32(tokens))
    rows = indices + length * torch.arange(images, device=indices.device).unsqueeze(1)
    # The backward pass of index_select adds whole rows; that of gather adds single elements.
    return tokens.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, indices.shape)
