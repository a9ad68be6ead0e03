"""SSF (Lian et al., NeurIPS 2022, arXiv 2210.08823): scale and shift the output of every operation."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import (
    Adapter,
    FrozenBlock,
    PerBlock,
    add_to_bias,
    hidden_width,
    per_block,
    scale_rows,
)
from shipbench.errors import InputError

from .settings import SsfConfig


class ScaleShift(nn.Module):
    """The map t -> scale * t + shift by channel; ``config`` may leave out either."""

    def __init__(self, width: int, config: SsfConfig) -> None:
        super().__init__()
        std = 0.02 if config.init == "normal" else 0.0
        self.scale = _drawn(width, 1.0, std) if config.scales else None
        self.shift = _drawn(width, 0.0, std) if config.shifts else None

    def forward(self, values: Tensor) -> Tensor:
        """Return scale * t + shift, with the shape of ``values`` (..., width)."""
        if self.scale is not None:
            values = values * self.scale
        return values if self.shift is None else values + self.shift

    def merge_into(self, weights: dict[str, Tensor], part: str) -> None:
        """Scale the rows of ``part``, a linear layer or a norm, and its bias, and shift the bias."""
        if self.scale is not None:
            scale_rows(weights, part, self.scale)
        if self.shift is not None:
            add_to_bias(weights, part, self.shift)


def _has_final_norm(backbone: VisionTransformer) -> bool:
    """Return whether a norm comes before or after pooling; InternViT and RADIO have neither."""
    return not (isinstance(backbone.norm, nn.Identity) and isinstance(backbone.fc_norm, nn.Identity))


def _drawn(width: int, mean: float, std: float) -> nn.Parameter:
    values = torch.full((width,), mean)
    return nn.Parameter(nn.init.normal_(values, mean, std) if std else values)


class Ssf(Adapter):
    """t -> scale * t + shift after the patch projection, all norms, qkv, proj, fc1 (before the activation) and fc2.

    A norm that the backbone lacks has none, nor have norms of queries and keys, which act within heads. Of a gated MLP,
    the gates have scales and shifts too.
    Raises ``InputError`` for an MLP of other layers.
    """

    def __init__(self, backbone: VisionTransformer, config: SsfConfig) -> None:
        super().__init__()
        width, depth = backbone.embed_dim, len(backbone.blocks)
        attention, mlp = backbone.blocks[0].attn, backbone.blocks[0].mlp
        if reason := config.why_unusable(type(mlp).__name__):
            raise InputError(reason)
        self.patch_count = int(backbone.patch_embed.num_patches)

        def one(included: bool) -> nn.Module:
            return ScaleShift(width, config) if included else nn.Identity()

        def each(included: bool, channels: int) -> PerBlock[nn.Module]:
            return per_block(depth, lambda: ScaleShift(channels, config) if included else nn.Identity())

        def after_inner(norm: nn.Module, channels: int) -> PerBlock[nn.Module]:
            return each(config.at_norms and not isinstance(norm, nn.Identity), channels)

        self.ssf_patch_embed = one(config.at_patches)
        self.ssf_norm1 = each(config.at_norms, width)
        self.ssf_qkv = each(config.at_attention, 3 * width)
        self.ssf_attn_norm = after_inner(attention.norm, attention.proj.in_features)
        self.ssf_proj = each(config.at_attention, width)
        self.ssf_norm2 = each(config.at_norms, width)
        self.ssf_fc1 = each(config.at_mlp, hidden_width(mlp))
        self.ssf_mlp_norm = after_inner(mlp.norm, mlp.fc2.in_features)
        self.ssf_fc2 = each(config.at_mlp, width)
        self.ssf_norm = one(config.at_norms and _has_final_norm(backbone))

    def patches(self, tokens: Tensor) -> Tensor:
        """Scale and shift the embedded patches."""
        return self.ssf_patch_embed(tokens)

    def norm1(self, block: FrozenBlock, x: Tensor) -> Tensor:
        """Scale and shift LN1(x)."""
        return self.ssf_norm1[block.index](block.norm1(x))

    def qkv(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Scale and shift queries, keys and values."""
        return self.ssf_qkv[block.index](block.qkv(u))

    def proj(self, block: FrozenBlock, heads: Tensor) -> Tensor:
        """Scale and shift the attention's output, and the input of proj where a norm is in front of it."""
        return self.ssf_proj[block.index](block.proj(self.ssf_attn_norm[block.index](heads)))

    def norm2(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Scale and shift LN2(h)."""
        return self.ssf_norm2[block.index](block.norm2(h))

    def mlp(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Scale and shift hidden values before the activation, the MLP's output, and the input of fc2 after a norm."""
        hidden = block.act(self.ssf_fc1[block.index](block.fc1(u)))
        hidden = self.ssf_mlp_norm[block.index](hidden)
        return block.ls2(self.ssf_fc2[block.index](block.fc2(hidden)))

    def final_norm(self, normed: Tensor) -> Tensor:
        """Scale and shift the output of the final norm."""
        return self.ssf_norm(normed)

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Scale the rows of every weight, and scale and shift its bias.

        Raises ``InputError`` for a backbone without such a tensor.
        """
        self._merge_patches(weights)
        self._merge_one(weights, "norm" if "norm.weight" in weights else "fc_norm", self.ssf_norm)
        blocks = {
            "norm1": self.ssf_norm1,
            "attn.qkv": self.ssf_qkv,
            "attn.norm": self.ssf_attn_norm,
            "attn.proj": self.ssf_proj,
            "norm2": self.ssf_norm2,
            "mlp.fc1": self.ssf_fc1,
            "mlp.norm": self.ssf_mlp_norm,
            "mlp.fc2": self.ssf_fc2,
        }
        for part, modules in blocks.items():
            for index, ssf in enumerate(modules):
                self._merge_one(weights, f"blocks.{index}.{part}", ssf)

    def _merge_patches(self, weights: dict[str, Tensor]) -> None:
        ssf = self.ssf_patch_embed
        if not isinstance(ssf, ScaleShift):
            return
        # In AIMv2, a norm follows the projection.
        part = "patch_embed.norm" if "patch_embed.norm.weight" in weights else "patch_embed.proj"
        if f"{part}.bias" in weights or "pos_embed" not in weights or ssf.shift is None:
            ssf.merge_into(weights, part)
            return
        if ssf.scale is not None:
            scale_rows(weights, part, ssf.scale)
        # The positions are added next; those of the patches come last.
        positions = weights["pos_embed"].clone()
        positions[:, -self.patch_count :] += ssf.shift
        weights["pos_embed"] = positions

    @staticmethod
    def _merge_one(weights: dict[str, Tensor], part: str, ssf: nn.Module) -> None:
        if isinstance(ssf, ScaleShift):
            ssf.merge_into(weights, part)
