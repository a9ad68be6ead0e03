"""Stochastic depth (Huang et al. 2016) drawn ahead of the pass, so that shared work can follow the masks.

A branch that is dropped for an image is dropped for all of its tokens, prompts included. Prompts that do not look
at images therefore have one state for each distinct drop history, not one for each image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


def drop_rates(vit: VisionTransformer) -> list[float]:
    """Return the drop rate of every block, as the backbone was built."""
    return [float(getattr(block.drop_path1, "drop_prob", 0.0) or 0.0) for block in vit.blocks]


def sample_drop_factors(rates: list[float], batch: int) -> Tensor | None:
    """Draw factors (L, 2, B), each 0 or 1 / keep, from torch's CPU generator; None if no block ever drops.

    The order is that of timm's ``DropPath``: block by block, the attention branch before the MLP branch.
    """
    if not any(rates):
        return None
    factors = torch.ones(len(rates), 2, batch)
    for block, rate in enumerate(rates):
        if rate > 0:
            keep = 1.0 - rate
            for branch in range(2):
                factors[block, branch].bernoulli_(keep).div_(keep)
    return factors


@dataclass(frozen=True)
class BranchFactors:
    """The factors of one branch: (B,), each 0 or 1 / keep, held on the CPU so that reading them never waits."""

    values: Tensor

    def column(self, like: Tensor) -> Tensor:
        """Return them as (B, 1, 1) in the type and on the device of ``like``."""
        return self.values.to(like.device, like.dtype, non_blocking=True).view(-1, 1, 1)

    @property
    def kept(self) -> Tensor | None:
        """Indices of images that keep the branch, or None if all do."""
        return None if bool((self.values != 0).all()) else self.values.nonzero().flatten()

    @property
    def scale(self) -> float:
        """The factor of the images that keep the branch, which is the same for all of them."""
        return float(self.values.max())

    def split(self, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split the states that images own by what this branch does to them.

        ``owner`` (B,) maps images to states. Returns, for every distinct (state, factor) pair, its ``parent`` state
        (S',) and ``factor`` (S',), and the new owner (B,).
        """
        code = owner * 2 + (self.values != 0)
        pairs, after = code.unique(return_inverse=True)
        return pairs // 2, (pairs % 2).to(self.values.dtype) * self.scale, after
