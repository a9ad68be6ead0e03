"""The Houlsby adapters (Houlsby et al., ICML 2019, arXiv 1902.00751): one after attention, one after the MLP."""

from __future__ import annotations

import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.adapting import Adapter, FrozenBlock, PerBlock, per_block

from .bottleneck import Bottleneck
from .settings import HoulsbyConfig
from .subset import belongs_to_norm


class Houlsby(Adapter):
    """h = x + a1(attention(LN1(x))), out = h + a2(mlp(LN2(h))), a(t) = t + s up(gelu(down(t))).

    The backbone's norms are trained too, as in the authors' setting. ``config`` may leave out either adapter.
    """

    def __init__(self, backbone: VisionTransformer, config: HoulsbyConfig) -> None:
        super().__init__()
        self.config = config
        width, depth = backbone.embed_dim, len(backbone.blocks)
        self.adapter_attn = per_block(depth if config.at_attention else 0, lambda: _drawn(width, config))
        self.adapter = per_block(depth if config.at_mlp else 0, lambda: _drawn(width, config))

    def trains(self, name: str) -> bool:
        """Return whether ``name`` belongs to a norm."""
        return self.config.train_norms and belongs_to_norm(name)

    def attention_residual(self, block: FrozenBlock, x: Tensor) -> Tensor:
        """Return x + a1(attention(LN1(x)))."""
        t = block.drop_path(self.attention(block, self.norm1(block, x)))
        return x + self._adapted(self.adapter_attn, block, t)

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return h + a2(mlp(LN2(h)))."""
        t = block.drop_path(self.mlp(block, self.norm2(block, h)))
        return h + self._adapted(self.adapter, block, t)

    def _adapted(self, adapters: PerBlock[Bottleneck], block: FrozenBlock, t: Tensor) -> Tensor:
        """Return a(t), or t where there are no ``adapters``."""
        if not adapters:
            return t
        adapter = adapters[block.index]
        branch = adapter.up(adapter.hidden(t))
        return t + self.config.scale * block.drop_path(branch, self.config.adapter_drop_path)


def _drawn(width: int, config: HoulsbyConfig) -> Bottleneck:
    return Bottleneck(width, config.dim, F.gelu, activation=config.activation).draw(0.01, 0.02)
