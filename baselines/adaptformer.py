"""AdaptFormer (Chen et al., NeurIPS 2022, arXiv 2205.13535): an adapter parallel to the MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import Adapter, FrozenBlock, per_block

from .bottleneck import Bottleneck
from .settings import AdaptFormerConfig


class AdaptFormer(Adapter):
    """out = h + mlp(LN2(h)) + s up(relu(down(h))): the adapter reads h before the norm."""

    def __init__(self, backbone: VisionTransformer, config: AdaptFormerConfig) -> None:
        super().__init__()
        self.config = config
        depth = len(backbone.blocks)
        self.adaptformer = per_block(depth, lambda: _branch(backbone.embed_dim, config.dim))
        self.scale = nn.ParameterList(torch.ones(()) for _ in range(depth if config.learned_scale else 0))

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return h + mlp(LN2(h)) + s up(relu(down(h))); stochastic depth drops the MLP alone."""
        branch = self.adaptformer[block.index]
        hidden = block.dropout(F.relu(branch.down(h)), self.config.dropout)
        scale = self.scale[block.index] if self.config.learned_scale else self.config.scale
        return super().mlp_residual(block, h) + scale * branch.up(hidden)


def _branch(width: int, dim: int) -> Bottleneck:
    branch = Bottleneck(width, dim)
    # The weight of ``down`` keeps the start of a linear layer.
    nn.init.zeros_(branch.up.weight)
    return branch
