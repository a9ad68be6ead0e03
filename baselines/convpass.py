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
        super().__init__(width, config.dim, quick_gelu, activation=config.activation)
        self.rate = config.dropout
        self.conv = _convolution(config) if config.convolution else None
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.up.weight)

    def forward(self, u: Tensor, block: FrozenBlock) -> Tensor:
        """Return c(u), (B, N, D); without a convolution, up(Q(down(u)))."""
        hidden = self.hidden(u)
        if self.conv is not None:
            hidden = self.act(_convolve(self.conv, hidden, block))
        return self.up(block.dropout(hidden, self.rate))


def _convolution(config: ConvpassConfig) -> nn.Conv2d:
    conv = nn.Conv2d(config.dim, config.dim, 3, padding=1)
    nn.init.zeros_(bias_of(conv))
    if config.conv_init == "identity":
        # Tap by tap, the Dirac delta is the unit matrix at the centre.
        nn.init.dirac_(conv.weight)
    else:
        nn.init.xavier_uniform_(conv.weight)
    return conv


def _convolve(conv: nn.Conv2d, hidden: Tensor, block: FrozenBlock) -> Tensor:
    """Convolve the patches; CLS is an image of one pixel, so only the centre tap and the bias act on it."""
    alone, patches = hidden[:, : block.prefix], hidden[:, block.prefix :]
    alone = F.linear(alone, conv.weight[:, :, 1, 1], conv.bias)
    image = conv(patches.transpose(1, 2).unflatten(2, block.grid))
    return torch.cat([alone, image.flatten(2).transpose(1, 2)], dim=1)


class Convpass(Adapter):
    """h = x + attention(LN1(x)) + s c1(LN1(x)), out = h + mlp(LN2(h)) + s c2(LN2(h)); ``config`` may leave out either.

    Stochastic depth draws for a branch and its bypass separately.
    """

    def __init__(self, backbone: VisionTransformer, config: ConvpassConfig) -> None:
        super().__init__()
        self.scale = config.scale
        width, depth = backbone.embed_dim, len(backbone.blocks)
        self.convpass_attn = per_block(depth if config.at_attention else 0, lambda: Bypass(width, config))
        self.convpass_mlp = per_block(depth if config.at_mlp else 0, lambda: Bypass(width, config))

    def attention_residual(self, block: FrozenBlock, x: Tensor) -> Tensor:
        """Return x + attention(u) + s c1(u), u = LN1(x)."""
        if not self.convpass_attn:
            return super().attention_residual(block, x)
        u = self.norm1(block, x)
        h = x + block.drop_path(self.attention(block, u))
        return h + self.scale * block.drop_path(self.convpass_attn[block.index](u, block))

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return h + mlp(u) + s c2(u), u = LN2(h)."""
        if not self.convpass_mlp:
            return super().mlp_residual(block, h)
        u = self.norm2(block, h)
        out = h + block.drop_path(self.mlp(block, u))
        return out + self.scale * block.drop_path(self.convpass_mlp[block.index](u, block))
