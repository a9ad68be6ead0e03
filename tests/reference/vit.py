"""The parts of a pre-norm vision transformer, one equation each, on the weights of a plain timm model.

B images, T tokens of width D, H heads of width d. Supported: fused or separate q, k, v, prefix (register) tokens, layer
scale, qk-norm, pre-norm, rotary positions (timm's ``Eva``) and pooled heads. There is no dropout; stochastic depth
applies only through explicit factors.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

Angles = tuple[Tensor, Tensor]
"""Sines and cosines (T, d) of the rotary positions of T tokens."""


def embed(vit: Any, images: Tensor) -> Tensor:
    """Image tokens that enter block 0, (B, N, D): CLS first, then registers, then the patches."""
    tokens = vit._pos_embed(vit.patch_embed(images))
    return vit.norm_pre(tokens[0] if isinstance(tokens, tuple) else tokens)


def angles_of(vit: Any) -> Angles | None:
    """The rotary positions of the image tokens, (N, d) each; CLS and registers do not turn."""
    if getattr(vit, "rope", None) is None:
        return None
    sine, cosine = vit.rope.get_embed(vit.patch_embed.grid_size).chunk(2, dim=-1)
    return unturned(vit.num_prefix_tokens, (sine, cosine), before=True)


def unturned(count: int, angles: Angles, *, before: bool = False) -> Angles:
    """``angles`` with those of ``count`` tokens that do not turn, behind or before them."""
    still = torch.zeros(count, angles[0].shape[1]), torch.ones(count, angles[0].shape[1])
    pairs = zip(still, angles, strict=True) if before else zip(angles, still, strict=True)
    sine, cosine = (torch.cat([one.to(angles[0]), other.to(angles[0])]) for one, other in pairs)
    return sine, cosine


def turn(attention: Any, heads: Tensor, angles: Angles) -> Tensor:
    """Rotate pairs of channels of queries or keys (B, H, T, d): neighbours, or one from either half."""
    sine, cosine = angles
    if attention.rotate_half:
        first, second = heads.chunk(2, dim=-1)
        partner = torch.cat([-second, first], dim=-1)
    else:
        partner = torch.stack([-heads[..., 1::2], heads[..., ::2]], dim=-1).flatten(-2)
    return heads * cosine + partner * sine


def queries_keys_values(attention: Any, normed: Tensor, angles: Angles | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v of normalised tokens (B, T, D), each (B, H, T, d)."""
    batch, length, _ = normed.shape
    if attention.qkv is None:
        projected = [part(normed) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
        fused = torch.cat(projected, dim=-1)
    else:
        fused = attention.qkv(normed)
    if getattr(attention, "q_bias", None) is not None:
        fused = fused + torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    heads = fused.reshape(batch, length, 3, attention.num_heads, attention.head_dim)
    query, key, value = heads.permute(2, 0, 3, 1, 4)
    query, key = attention.q_norm(query), attention.k_norm(key)
    if angles is not None:
        query, key = turn(attention, query, angles), turn(attention, key, angles)
    return query, key, value


def attention_logits(query: Tensor, key: Tensor) -> Tensor:
    """q k^T / sqrt(d), (B, H, T, T)."""
    return query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5


def attend(logits: Tensor, value: Tensor) -> Tensor:
    """softmax(logits) v, (B, H, T, d)."""
    return logits.softmax(dim=-1) @ value


def merge_heads(heads: Tensor) -> Tensor:
    """(B, H, T, d) -> (B, T, D)."""
    return heads.transpose(1, 2).flatten(2)


def attention_branch(block: Any, mixed: Tensor) -> Tensor:
    """LS1(W_o mixed + b_o), (B, T, D)."""
    return scaled(block, "ls1", "gamma_1", block.attn.proj(block.attn.norm(mixed)))


def mlp_branch(block: Any, tokens: Tensor) -> Tensor:
    """LS2(MLP(LN2(tokens))), (B, T, D)."""
    return scaled(block, "ls2", "gamma_2", block.mlp(block.norm2(tokens)))


def scaled(block: Any, module: str, vector: str, branch: Tensor) -> Tensor:
    """Layer scale, which is a module of a plain block and a vector or None of an Eva block."""
    if hasattr(block, module):
        return getattr(block, module)(branch)
    gamma = getattr(block, vector)
    return branch if gamma is None else gamma * branch


def residual(tokens: Tensor, branch: Tensor, factor: Tensor) -> Tensor:
    """tokens + factor * branch, with one stochastic-depth factor per image, (B,)."""
    return tokens + factor[:, None, None] * branch


def classify(vit: Any, tokens: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """W LN(CLS) + b, (B, C), of the last block's image tokens; a ViT that pools does so after the final norm."""
    normed = vit.norm(tokens)
    patches = normed[:, vit.num_prefix_tokens :]
    if vit.attn_pool is not None:
        # Eva's attention pool reads all tokens, that of a plain ViT the patches unless it is built otherwise.
        features = vit.attn_pool(normed if getattr(vit, "pool_include_prefix", True) else patches)
    elif vit.global_pool == "avg":
        features = patches.mean(dim=1)
    else:
        assert vit.global_pool == "token"
        features = normed[:, 0]
    return F.linear(vit.fc_norm(features), parameters["head.weight"], parameters["head.bias"])


def keep_everything(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Stochastic-depth factors (L, 2, B) that drop nothing."""
    return images.new_ones(len(vit.blocks), 2, len(images))
