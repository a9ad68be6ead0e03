"""One frozen block during a pass: the parts of timm's block, and the random masks of the pass."""

from __future__ import annotations

from dataclasses import dataclass

from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor

from shipbench.adapting.mlps import activated, hidden_values
from shipbench.adapting.noise import Noise
from shipbench.prompting.architectures import rotated, scale_attention, scale_mlp
from shipbench.prompting.attention import (
    attend_jointly,
    merge_heads,
    project_qkv_rows,
    queries_keys_and_values,
    split_heads,
)


@dataclass(frozen=True)
class FrozenBlock:
    """Block ``index`` of the backbone, whose methods compute what timm's modules compute.

    ``drop_rate`` is the rate of stochastic depth. The tokens are ``prefix`` tokens (CLS first), then the patches of a
    ``grid`` (rows, columns) in row-major order. ``positions`` are their rotary positions, if the backbone has any.
    """

    index: int
    timm: Block | EvaBlock
    drop_rate: float
    noise: Noise
    prefix: int
    grid: tuple[int, int]
    positions: Tensor | None = None

    def norm1(self, x: Tensor) -> Tensor:
        """Return LN1(x), the input of the attention (B, N, D)."""
        return self.timm.norm1(x)

    def qkv(self, u: Tensor) -> Tensor:
        """Return queries, keys and values of ``u`` side by side (B, N, 3D)."""
        return project_qkv_rows(self.timm.attn, u)

    def attend(self, qkv: Tensor, prefix: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the outputs of all heads side by side (B, N, D).

        ``prefix`` holds further keys and values (1, P, D), to which all tokens of all images attend as well, in the
        same softmax. They are used as they are, without a norm and without positions.
        """
        attention = self.timm.attn
        query, key, value = queries_keys_and_values(attention, qkv)
        query, key = (rotated(attention, heads, self.positions) for heads in (query, key))
        further = prefix and (split_heads(attention, prefix[0].to(key)), split_heads(attention, prefix[1].to(value)))
        return merge_heads(attention, attend_jointly(query, (key, value), further))

    def proj(self, heads: Tensor) -> Tensor:
        """Apply the attention's output projection (B, N, D)."""
        return self.timm.attn.proj(heads)

    def ls1(self, branch: Tensor) -> Tensor:
        """Apply the attention's layer scale, if the backbone has one."""
        return scale_attention(self.timm, branch)

    def norm2(self, h: Tensor) -> Tensor:
        """Return LN2(h), the input of the MLP (B, N, D)."""
        return self.timm.norm2(h)

    def mlp(self, u: Tensor) -> Tensor:
        """Return the output of the MLP (B, N, D), whatever its layers."""
        return self.timm.mlp(u)

    def fc1(self, u: Tensor) -> Tensor:
        """Return the hidden values before the activation (B, N, 4D); a gated MLP has gates beside them."""
        return hidden_values(self.timm.mlp, u)

    def act(self, hidden: Tensor) -> Tensor:
        """Apply the activation, by which a gated MLP multiplies, and the norm in front of ``fc2``, if there is one."""
        return self.timm.mlp.norm(activated(self.timm.mlp, hidden))

    def fc2(self, hidden: Tensor) -> Tensor:
        """Return the output of the MLP (B, N, D) of what ``act`` returns."""
        return self.timm.mlp.fc2(hidden)

    def ls2(self, branch: Tensor) -> Tensor:
        """Apply the MLP's layer scale, if the backbone has one."""
        return scale_mlp(self.timm, branch)

    def dropout(self, values: Tensor, rate: float) -> Tensor:
        """Drop each of ``values`` with probability ``rate`` in training."""
        return self.noise.dropout(values, rate)

    def drop_path(self, branch: Tensor, rate: float | None = None) -> Tensor:
        """Drop ``branch`` (B, N, D) for whole images in training, at the block's rate unless ``rate`` is given."""
        return self.noise.drop_path(branch, self.drop_rate if rate is None else rate)
