"""Convpass (Jie and Deng, arXiv 2207.07039): convolutional bypasses of attention and MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import Adapter, FrozenBlock, per_block

from .bottleneck import Bottleneck, bias_of, quick_gelu
from .settings import ConvpassConfig


class Bypass(Bottleneck):
    """c(u) = up(Q(conv(Q(down(u))))) with a 3x3 convolution over the grid of patches and Q(t) = t sigmoid(1.702 t)."""

    def __init__(self, width: int, config: ConvpassConfig) -> None:
        super().__init__(width, config.dim)
        self.rate = config.dropout
        self.conv = nn.Conv2d(config.dim, config.dim, 3, padding=1)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(bias_of(self.conv))
        if config.conv_init == "identity":
            # Tap by tap, the Dirac delta is the unit matrix at the centre.
            nn.init.dirac_(self.conv.weight)
        else:
            nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, u: Tensor, block: FrozenBlock) -> Tensor:
        """Return c(u), (B, N, D)."""
        hidden = quick_gelu(self._convolve(quick_gelu(self.down(u)), block))
        return self.up(block.dropout(hidden, self.rate))

    def _convolve(self, hidden: Tensor, block: FrozenBlock) -> Tensor:
        """Convolve the patches; CLS is an image of one pixel, so only the centre tap and the bias act on it."""
        alone, patches = hidden[:, : block.prefix], hidden[:, block.prefix :]
        alone = F.linear(alone, self.conv.weight[:, :, 1, 1], self.conv.bias)
        image = self.conv(patches.transpose(1, 2).unflatten(2, block.grid))
        return torch.cat([alone, image.flatten(2).transpose(1, 2)], dim=1)


class ConvpassAttention(Adapter):
    """h = x + attention(LN1(x)) + s c(LN1(x))."""

    def __init__(self, backbone: VisionTransformer, config: ConvpassConfig) -> None:
        super().__init__()
        self.scale = config.scale
        self.convpass_attn = per_block(len(backbone.blocks), lambda: Bypass(backbone.embed_dim, config))

    def attention_residual(self, block: FrozenBlock, x: Tensor) -> Tensor:
        """Return x + attention(u) + s c(u), u = LN1(x); stochastic depth draws for both branches separately."""
        u = self.norm1(block, x)
        h = x + block.drop_path(self.attention(block, u))
        return h + self.scale * block.drop_path(self.convpass_attn[block.index](u, block))


class Convpass(ConvpassAttention):
    """As ``ConvpassAttention``, and out = h + mlp(LN2(h)) + s c(LN2(h)) with a second bypass."""

    def __init__(self, backbone: VisionTransformer, config: ConvpassConfig) -> None:
        super().__init__(backbone, config)
        self.convpass_mlp = per_block(len(backbone.blocks), lambda: Bypass(backbone.embed_dim, config))

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return h + mlp(u) + s c(u), u = LN2(h); stochastic depth draws for both branches separately."""
        u = self.norm2(block, h)
        out = h + block.drop_path(self.mlp(block, u))
        return out + self.scale * block.drop_path(self.convpass_mlp[block.index](u, block))
