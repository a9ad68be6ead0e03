"""The adapter after the MLP, as NOAH (arXiv 2206.04673) and VPT (arXiv 2203.12119) compare with it."""

from __future__ import annotations

import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import Adapter, FrozenBlock, per_block

from .bottleneck import Activation, Bottleneck, quick_gelu
from .settings import SerialConfig


class NoahAdapter(Adapter):
    """out = h + t + up(Q(down(t))), t = mlp(LN2(h)), Q(t) = t sigmoid(1.702 t): the "Adapter" of NOAH's tables."""

    def __init__(self, backbone: VisionTransformer, config: SerialConfig) -> None:
        super().__init__()
        self.rate = config.dropout
        self.adapter = per_block(len(backbone.blocks), lambda: _serial(backbone.embed_dim, config))

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return h + t + up(Q(down(t))); the adapter acts on t as stochastic depth leaves it."""
        t = block.drop_path(self.mlp(block, self.norm2(block, h)))
        adapter = self.adapter[block.index]
        return h + t + adapter.up(block.dropout(adapter.hidden(t), self.rate))


class VptAdapter(NoahAdapter):
    """out = h + t + up(gelu(down(t))), t = mlp(LN2(h)): the "Adapter" of VPT's tables."""

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return h + t + up(gelu(down(t))); stochastic depth drops t and the adapter together."""
        t = self.mlp(block, self.norm2(block, h))
        adapter = self.adapter[block.index]
        return h + block.drop_path(t + adapter.up(adapter.hidden(t)))


def make_serial(backbone: VisionTransformer, config: SerialConfig) -> Adapter:
    """Return the adapter of the form that ``config`` names."""
    return {"noah": NoahAdapter, "vpt": VptAdapter}[config.form](backbone, config)


def _serial(width: int, config: SerialConfig) -> Bottleneck:
    act: Activation = quick_gelu if config.form == "noah" else F.gelu
    adapter = Bottleneck(width, config.dim, act, activation=config.activation).draw(0.02, 2.0)
    if config.init in ("zero", "zero_up"):
        nn.init.zeros_(adapter.up.weight)
    if config.init == "zero":
        nn.init.zeros_(adapter.down.weight)
    return adapter
