"""Adapter+ (Steitz and Roth, CVPR 2024, arXiv 2406.06820): an adapter after the whole block, scaled by channel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import Adapter, FrozenBlock, per_block

from .bottleneck import Bottleneck
from .settings import AdapterPlusConfig


class ScaledBottleneck(Bottleneck):
    """A bottleneck with a scale for each of its output channels, which starts at 1."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(width, dim)
        self.draw(0.01, 0.02)
        self.scale = nn.Parameter(torch.ones(width))


class AdapterPlus(Adapter):
    """out = y + g * up(gelu(down(y))), y = h + mlp(LN2(h))."""

    def __init__(self, backbone: VisionTransformer, config: AdapterPlusConfig) -> None:
        super().__init__()
        self.config = config
        self.adapter = per_block(len(backbone.blocks), lambda: ScaledBottleneck(backbone.embed_dim, config.dim))

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return y + g * up(gelu(down(y))), y = h + mlp(LN2(h))."""
        y = super().mlp_residual(block, h)
        adapter = self.adapter[block.index]
        branch = adapter.up(F.gelu(adapter.down(y)))
        return y + adapter.scale * block.drop_path(branch, self.config.adapter_drop_path)
