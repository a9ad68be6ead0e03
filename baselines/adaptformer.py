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
    """out = h + mlp(LN2(h)) + s up(relu(down(h))): the adapter reads h before the norm.

    Placed serially, it reads t = mlp(LN2(h)) instead: out = h + t + s up(relu(down(t))).
    """

    def __init__(self, backbone: VisionTransformer, config: AdaptFormerConfig) -> None:
        super().__init__()
        self.config = config
        depth = len(backbone.blocks)
        self.adaptformer = per_block(depth, lambda: _new_branch(backbone.embed_dim, config))
        self.scale = nn.ParameterList(torch.ones(()) for _ in range(depth if config.learned_scale else 0))

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return h + mlp(LN2(h)) + s up(relu(down(h))); stochastic depth drops the MLP alone."""
        if self.config.placement == "serial":
            t = block.drop_path(self.mlp(block, self.norm2(block, h)))
            return h + t + self._branch(block, t)
        branch = self._branch(block, h)
        return super().mlp_residual(block, h) + branch

    def _branch(self, block: FrozenBlock, values: Tensor) -> Tensor:
        """Return s up(relu(down(values)))."""
        branch = self.adaptformer[block.index]
        hidden = block.dropout(branch.hidden(values), self.config.dropout)
        scale = self.scale[block.index] if self.config.learned_scale else self.config.scale
        return scale * branch.up(hidden)


def _new_branch(width: int, config: AdaptFormerConfig) -> Bottleneck:
    branch = Bottleneck(width, config.dim, F.relu, activation=config.activation)
    # The weight of ``down`` keeps the start of a linear layer.
    nn.init.zeros_(branch.up.weight)
    return branch
