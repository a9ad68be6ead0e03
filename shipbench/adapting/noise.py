"""Dropout and stochastic depth of one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from shipbench.errors import InputError


@dataclass(frozen=True)
class Noise:
    """The random masks of a pass, none in evaluation.

    ``masks`` are used in the order in which the pass asks for them, 1 to keep a value and 0 to drop it; without them,
    torch's global generators draw. Kept values are divided by the probability of keeping them.
    """

    training: bool = False
    masks: Iterator[Tensor] | None = None

    def dropout(self, values: Tensor, rate: float) -> Tensor:
        """Drop each of ``values`` with probability ``rate``."""
        if not self.training or not rate:
            return values
        if self.masks is None:
            return F.dropout(values, rate)
        return values * self._next_mask(values.shape, values).div(1 - rate)

    def drop_path(self, branch: Tensor, rate: float) -> Tensor:
        """Drop the whole ``branch`` (B, N, D) of each image with probability ``rate``."""
        if not self.training or not rate:
            return branch
        shape = (len(branch), *[1] * (branch.ndim - 1))
        if self.masks is None:
            # In bf16, 1 / (1 - rate) would be off by up to 0.4 %.
            drawn = branch.new_empty(shape, dtype=torch.promote_types(branch.dtype, torch.float32))
            return branch * drawn.bernoulli_(1 - rate).div_(1 - rate)
        return branch * self._next_mask(shape, branch).div(1 - rate)

    def _next_mask(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        assert self.masks is not None
        mask = next(self.masks, None)
        if mask is None or mask.shape != shape:
            answer = "there is no further mask" if mask is None else f"the next mask is {tuple(mask.shape)}"
            raise InputError(f"the pass asks for a mask {tuple(shape)}, but {answer}; pass masks in the pass's order")
        return mask.to(like)
