"""The Pfeiffer adapter (Pfeiffer et al., EACL 2021, arXiv 2005.00247): after the MLP, with a norm in front."""

from __future__ import annotations

import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import Adapter, FrozenBlock, per_block

from .bottleneck import Bottleneck
from .settings import PfeifferConfig


class NormedBottleneck(Bottleneck):
    """A bottleneck with a norm in front, unless ``config`` leaves it out; weights are drawn with deviation 0.02."""

    def __init__(self, width: int, config: PfeifferConfig) -> None:
        super().__init__(width, config.dim, F.gelu, activation=config.activation)
        self.norm = nn.LayerNorm(width, eps=1e-6) if config.norm else nn.Identity()
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.normal_(self.up.weight, std=0.02)


class Pfeiffer(Adapter):
    """out = h + t + s up(gelu(down(LN_a(h + t)))), t = mlp(LN2(h)): AdapterHub's form."""

    def __init__(self, backbone: VisionTransformer, config: PfeifferConfig) -> None:
        super().__init__()
        self.config = config
        self.adapter = per_block(len(backbone.blocks), lambda: NormedBottleneck(backbone.embed_dim, config))

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return y + s up(gelu(down(LN_a(y)))), y = h + mlp(LN2(h))."""
        t = block.drop_path(self.mlp(block, self.norm2(block, h)))
        y, adapter = h + t, self.adapter[block.index]
        branch = adapter.up(adapter.hidden(adapter.norm(y if self.config.reads_residual else t)))
        return y + self.config.scale * block.drop_path(branch, self.config.adapter_drop_path)
