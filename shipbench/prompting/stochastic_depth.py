"""Stochastic depth (Huang et al. 2016), drawn before the pass so that images with equal masks can share work.

Dropping a branch for an image drops it for all tokens of the image, prompts included. Prompts that do not depend on
images therefore have one state per distinct drop history instead of one per image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


def drop_rates(vit: VisionTransformer) -> list[float]:
    """Return the drop rate with which the backbone built each block."""
    return [float(getattr(block.drop_path1, "drop_prob", 0.0) or 0.0) for block in vit.blocks]


def sample_drop_factors(rates: list[float], batch: int) -> Tensor | None:
    """Draw factors (L, 2, B), each 0 or 1 / keep, from torch's CPU generator; return None if all rates are 0.

    The order of draws is that of timm's ``DropPath``: block by block, the attention branch before the MLP branch.
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
    """The factors (B,) of one branch, each 0 or 1 / keep, on the CPU so that reading them does not wait for a GPU."""

    values: Tensor

    def column(self, like: Tensor) -> Tensor:
        """Return the factors as (B, 1, 1) with the type and on the device of ``like``."""
        return self.values.to(like.device, like.dtype, non_blocking=True).view(-1, 1, 1)

    @property
    def kept(self) -> Tensor | None:
        """Indices of the images that keep the branch, or None if all do."""
        return None if bool((self.values != 0).all()) else self.values.nonzero().flatten()

    @property
    def scale(self) -> float:
        """The factor 1 / keep of the images that keep the branch."""
        return float(self.values.max())

    def split(self, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split each state into one for the images that keep the branch and one for those that drop it.

        ``owner`` (B,) maps images to states. Returns the ``parent`` state (S',) and the ``factor`` (S',) of each new
        state, and the new owner (B,).
        """
        code = owner * 2 + (self.values != 0)
        pairs, new_owner = code.unique(return_inverse=True)
        return pairs // 2, (pairs % 2).to(self.values.dtype) * self.scale, new_owner
