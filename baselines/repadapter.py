"""RepAdapter (Luo et al., arXiv 2302.08106): linear adapters in front of attention and MLP."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import Adapter, FrozenBlock, add_to_bias, add_to_weight, per_block, weight_of
from shipbench.errors import InputError

from .settings import RepAdapterConfig


class Rep(nn.Module):
    """r(u) = u + s B(A u): A to ``dim`` hidden units, B back in groups, both 1x1 convolutions.

    Raises ``InputError`` for groups that do not divide the backbone's width.
    """

    def __init__(self, width: int, config: RepAdapterConfig) -> None:
        super().__init__()
        if width % config.groups:
            raise InputError(f"groups is {config.groups}, which does not divide the backbone's width of {width}")
        self.scale, self.rate, self.groups = config.scale, config.dropout, config.groups
        self.a = nn.Conv1d(width, config.dim, 1, bias=config.biases)
        self.b = nn.Conv1d(config.dim, width, 1, groups=config.groups, bias=config.biases)
        nn.init.xavier_uniform_(self.a.weight)
        nn.init.zeros_(self.b.weight)
        for layer in (self.a, self.b):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, u: Tensor, block: FrozenBlock) -> Tensor:
        """Return r(u), (B, N, D)."""
        hidden = block.dropout(self.a(u.transpose(1, 2)), self.rate)
        return u + self.scale * self.b(hidden).transpose(1, 2)

    def merge_into(self, weights: dict[str, Tensor], part: str) -> None:
        """Change ``part``, a linear layer with weight W and bias b, so that it computes W r(u) + b."""
        dense = torch.block_diag(*self.b.weight.squeeze(-1).chunk(self.groups))
        weight = weight_of(weights, part)
        # W r(u) = (W + s W B A) u + s W (B a_bias + b_bias)
        through = self.scale * weight @ dense
        add_to_weight(weights, part, through @ self.a.weight.squeeze(-1))
        if self.a.bias is not None and self.b.bias is not None:
            add_to_bias(weights, part, through @ self.a.bias + self.scale * weight @ self.b.bias)


class RepAdapter(Adapter):
    """h = x + attention(r1(LN1(x))), out = h + mlp(r2(LN2(h))); ``config`` may leave out either."""

    def __init__(self, backbone: VisionTransformer, config: RepAdapterConfig) -> None:
        super().__init__()
        width, depth = backbone.embed_dim, len(backbone.blocks)
        self.repadapter_attn = per_block(depth if config.at_attention else 0, lambda: Rep(width, config))
        self.repadapter_mlp = per_block(depth if config.at_mlp else 0, lambda: Rep(width, config))

    def norm1(self, block: FrozenBlock, x: Tensor) -> Tensor:
        """Return r1(LN1(x))."""
        u = block.norm1(x)
        return self.repadapter_attn[block.index](u, block) if self.repadapter_attn else u

    def norm2(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return r2(LN2(h))."""
        u = block.norm2(h)
        return self.repadapter_mlp[block.index](u, block) if self.repadapter_mlp else u

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Merge the adapters into qkv and fc1."""
        for part, adapters in (("attn.qkv", self.repadapter_attn), ("mlp.fc1", self.repadapter_mlp)):
            for index, rep in enumerate(adapters):
                rep.merge_into(weights, f"blocks.{index}.{part}")
