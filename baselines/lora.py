"""LoRA (Hu et al., ICLR 2022, arXiv 2106.09685) on the attention's projections."""

from __future__ import annotations

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import Adapter, FrozenBlock, add_to_weight, per_block

from .settings import LoraConfig


class LowRank(nn.Module):
    """The map u -> b a u, with ``a`` (rank, width) and ``b`` (out, rank), without biases."""

    def __init__(self, width: int, out: int, config: LoraConfig) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(config.rank, width))
        self.b = nn.Parameter(torch.zeros(out, config.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        if config.init == "noah":
            nn.init.trunc_normal_(self.a, std=0.02)
            nn.init.trunc_normal_(self.b, std=0.02)

    def forward(self, u: Tensor) -> Tensor:
        """Return b a u, (B, N, out)."""
        return u @ self.a.T @ self.b.T


class FusedLora(Adapter):
    """qkv(u) + s b a u: one pair for q, k and v together, as in NOAH and in the peft library.

    Of projections that do not change, b has no rows.
    """

    def __init__(self, backbone: VisionTransformer, config: LoraConfig) -> None:
        super().__init__()
        self.config = config
        width = backbone.embed_dim
        self.changes = (config.at_query, config.at_key, config.at_value)
        depth, out = len(backbone.blocks), width * sum(self.changes)
        self.lora = per_block(depth if out else 0, lambda: LowRank(width, out, config))

    def qkv(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return qkv(u) + s b a u."""
        if not self.lora:
            return block.qkv(u)
        change = self.lora[block.index](block.dropout(u, self.config.dropout))
        return block.qkv(u) + self._spread(self.config.factor * change, dim=-1)

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Add s b a to the weight of qkv."""
        for index, pair in enumerate(self.lora):
            change = self._spread(self.config.factor * pair.b @ pair.a, dim=0)
            add_to_weight(weights, f"blocks.{index}.attn.qkv", change)

    def _spread(self, change: Tensor, dim: int) -> Tensor:
        """Return ``change`` with zeros along ``dim`` for the projections that do not change."""
        if all(self.changes):
            return change
        thirds = iter(change.chunk(sum(self.changes), dim=dim))
        zero = torch.zeros_like(change.narrow(dim, 0, change.shape[dim] // sum(self.changes)))
        return torch.cat([next(thirds) if changes else zero for changes in self.changes], dim=dim)


class SeparateLora(Adapter):
    """q(u) + s b_q a_q u and v(u) + s b_v a_v u, as in the code of Jie and Deng; k is unchanged."""

    def __init__(self, backbone: VisionTransformer, config: LoraConfig) -> None:
        super().__init__()
        self.config = config
        width, depth = backbone.embed_dim, len(backbone.blocks)
        self.lora_q = per_block(depth if config.at_query else 0, lambda: LowRank(width, width, config))
        self.lora_v = per_block(depth if config.at_value else 0, lambda: LowRank(width, width, config))

    def qkv(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return qkv(u) with s b a u added to q and to v."""
        query, key, value = block.qkv(u).chunk(3, dim=-1)
        if self.lora_q:
            query = query + self._change(self.lora_q[block.index], block, u)
        if self.lora_v:
            value = value + self._change(self.lora_v[block.index], block, u)
        return torch.cat([query, key, value], dim=-1)

    def _change(self, pair: LowRank, block: FrozenBlock, u: Tensor) -> Tensor:
        hidden = block.dropout(u @ pair.a.T, self.config.dropout)
        return self.config.factor * hidden @ pair.b.T

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Add s b a to the rows of q and of v in the weight of qkv."""
        for third, pairs in ((0, self.lora_q), (2, self.lora_v)):
            for index, pair in enumerate(pairs):
                change = self.config.factor * pair.b @ pair.a
                rows = [change if place == third else torch.zeros_like(change) for place in range(3)]
                add_to_weight(weights, f"blocks.{index}.attn.qkv", torch.cat(rows))


def make_lora(backbone: VisionTransformer, config: LoraConfig) -> Adapter:
    """Return the adapter of the form that ``config`` names."""
    return SeparateLora(backbone, config) if config.form == "qv" else FusedLora(backbone, config)
