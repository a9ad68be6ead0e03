"""RepAdapter (Luo et al., arXiv 2302.08106): linear adapters in front of attention and MLP."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import Adapter, FrozenBlock, add_to_bias, per_block

from .bottleneck import bias_of
from .settings import RepAdapterConfig


class Rep(nn.Module):
    """r(u) = u + s B(A u): A to ``dim`` hidden units, B back in two groups, both 1x1 convolutions with biases."""

    def __init__(self, width: int, config: RepAdapterConfig) -> None:
        super().__init__()
        self.scale, self.rate = config.scale, config.dropout
        self.a = nn.Conv1d(width, config.dim, 1)
        self.b = nn.Conv1d(config.dim, width, 1, groups=2)
        nn.init.xavier_uniform_(self.a.weight)
        for zero in (bias_of(self.a), self.b.weight, bias_of(self.b)):
            nn.init.zeros_(zero)

    def forward(self, u: Tensor, block: FrozenBlock) -> Tensor:
        """Return r(u), (B, N, D)."""
        hidden = block.dropout(self.a(u.transpose(1, 2)), self.rate)
        return u + self.scale * self.b(hidden).transpose(1, 2)

    def merge_into(self, weights: dict[str, Tensor], part: str) -> None:
        """Change ``part``, a linear layer with weight W and bias b, so that it computes W r(u) + b."""
        dense = torch.block_diag(*self.b.weight.squeeze(-1).chunk(2))
        weight = weights[f"{part}.weight"]
        # W r(u) = (W + s W B A) u + s W (B a_bias + b_bias)
        through = self.scale * weight @ dense
        weights[f"{part}.weight"] = weight + through @ self.a.weight.squeeze(-1)
        add_to_bias(weights, part, through @ bias_of(self.a) + self.scale * weight @ bias_of(self.b))


class RepAdapterAttention(Adapter):
    """h = x + attention(r(LN1(x)))."""

    def __init__(self, backbone: VisionTransformer, config: RepAdapterConfig) -> None:
        super().__init__()
        self.repadapter_attn = per_block(len(backbone.blocks), lambda: Rep(backbone.embed_dim, config))

    def norm1(self, block: FrozenBlock, x: Tensor) -> Tensor:
        """Return r(LN1(x))."""
        return self.repadapter_attn[block.index](block.norm1(x), block)

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Merge r into qkv."""
        for index, rep in enumerate(self.repadapter_attn):
            rep.merge_into(weights, f"blocks.{index}.attn.qkv")


class RepAdapter(RepAdapterAttention):
    """As ``RepAdapterAttention``, and out = h + mlp(r(LN2(h))) with a second adapter."""

    def __init__(self, backbone: VisionTransformer, config: RepAdapterConfig) -> None:
        super().__init__(backbone, config)
        self.repadapter_mlp = per_block(len(backbone.blocks), lambda: Rep(backbone.embed_dim, config))

    def norm2(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return r(LN2(h))."""
        return self.repadapter_mlp[block.index](block.norm2(h), block)

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Merge the adapters into qkv and fc1."""
        super().merge(weights)
        for index, rep in enumerate(self.repadapter_mlp):
            rep.merge_into(weights, f"blocks.{index}.mlp.fc1")
