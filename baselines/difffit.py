"""DiffFit (Xie et al., ICCV 2023, arXiv 2304.06648), as the OSU-MLB benchmark computes it."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import Adapter, FrozenBlock, scale_rows

from .settings import DiffFitConfig
from .subset import belongs_to_norm


class DiffFit(Adapter):
    """h = x + g1 * attention(LN1(x)), out = h + g2 * mlp(LN2(h)); g, all biases and all norms are trained."""

    def __init__(self, backbone: VisionTransformer, config: DiffFitConfig) -> None:
        super().__init__()
        self.config = config
        width, depth = backbone.embed_dim, len(backbone.blocks) if config.gammas else 0
        self.gamma1 = nn.ParameterList(torch.ones(width) for _ in range(depth))
        self.gamma2 = nn.ParameterList(torch.ones(width) for _ in range(depth))

    def trains(self, name: str) -> bool:
        """Return whether ``name`` is a bias or belongs to a norm, as far as these are trained."""
        return (self.config.biases and "bias" in name) or (self.config.norms and belongs_to_norm(name))

    def attention_residual(self, block: FrozenBlock, x: Tensor) -> Tensor:
        """Return x + g1 * attention(LN1(x)); stochastic depth acts before g1."""
        if not self.gamma1:
            return super().attention_residual(block, x)
        return x + self.gamma1[block.index] * block.drop_path(self.attention(block, self.norm1(block, x)))

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return h + g2 * mlp(LN2(h)); stochastic depth acts before g2."""
        if not self.gamma2:
            return super().mlp_residual(block, h)
        return h + self.gamma2[block.index] * block.drop_path(self.mlp(block, self.norm2(block, h)))

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Scale the rows of proj and fc2 and their biases."""
        for index, (attention, mlp) in enumerate(zip(self.gamma1, self.gamma2, strict=True)):
            scale_rows(weights, f"blocks.{index}.attn.proj", attention)
            scale_rows(weights, f"blocks.{index}.mlp.fc2", mlp)
