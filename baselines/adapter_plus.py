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
    """A bottleneck with a scale for each of its output channels, or for all, or for none; scales start at 1."""

    def __init__(self, width: int, config: AdapterPlusConfig) -> None:
        super().__init__(width, config.dim, F.gelu, activation=config.activation)
        self.draw(0.01, 0.02)
        scales = {"channel": width, "layer": 1, "none": 0}[config.scaling]
        self.scale = nn.Parameter(torch.ones(scales)) if scales else None

    def scaled(self, branch: Tensor) -> Tensor:
        """Return g * branch."""
        return branch if self.scale is None else self.scale * branch


class AdapterPlus(Adapter):
    """out = y + g * up(gelu(down(y))), y = h + mlp(LN2(h))."""

    def __init__(self, backbone: VisionTransformer, config: AdapterPlusConfig) -> None:
        super().__init__()
        self.config = config
        self.adapter = per_block(len(backbone.blocks), lambda: ScaledBottleneck(backbone.embed_dim, config))

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return y + g * up(gelu(down(y))), y = h + mlp(LN2(h))."""
        t = block.drop_path(self.mlp(block, self.norm2(block, h)))
        y, adapter = h + t, self.adapter[block.index]
        branch = adapter.up(adapter.hidden(y if self.config.reads_residual else t))
        return y + adapter.scaled(block.drop_path(branch, self.config.adapter_drop_path))
