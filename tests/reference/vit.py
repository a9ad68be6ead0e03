"""The parts of a pre-norm vision transformer, one equation each, on the weights of a plain timm model.

B images, T tokens of width D, H heads of width d. Supported: fused qkv, prefix (register) tokens, layer scale,
qk-norm, pre-norm. There is no dropout; stochastic depth applies only through explicit factors.
"""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor


def embed(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Image tokens that enter block 0, (B, N, D): CLS first, then registers, then the patches."""
    return vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))


def queries_keys_values(attention: Attention, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v of normalised tokens (B, T, D), each (B, H, T, d)."""
    batch, length, _ = normed.shape
    fused = attention.qkv(normed).reshape(batch, length, 3, attention.num_heads, attention.head_dim)
    query, key, value = fused.permute(2, 0, 3, 1, 4)
    return attention.q_norm(query), attention.k_norm(key), value


def attention_logits(query: Tensor, key: Tensor) -> Tensor:
    """q k^T / sqrt(d), (B, H, T, T)."""
    return query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5


def attend(logits: Tensor, value: Tensor) -> Tensor:
    """softmax(logits) v, (B, H, T, d)."""
    return logits.softmax(dim=-1) @ value


def merge_heads(heads: Tensor) -> Tensor:
    """(B, H, T, d) -> (B, T, D)."""
    return heads.transpose(1, 2).flatten(2)


def attention_branch(block: Block, mixed: Tensor) -> Tensor:
    """LS1(W_o mixed + b_o), (B, T, D)."""
    return block.ls1(block.attn.proj(mixed))


def mlp_branch(block: Block, tokens: Tensor) -> Tensor:
    """LS2(MLP(LN2(tokens))), (B, T, D)."""
    return block.ls2(block.mlp(block.norm2(tokens)))


def residual(tokens: Tensor, branch: Tensor, factor: Tensor) -> Tensor:
    """tokens + factor * branch, with one stochastic-depth factor per image, (B,)."""
    return tokens + factor[:, None, None] * branch


def classify(vit: VisionTransformer, tokens: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """W LN(CLS) + b, (B, C), of the last block's output."""
    return F.linear(vit.norm(tokens)[:, 0], parameters["head.weight"], parameters["head.bias"])


def keep_everything(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Stochastic-depth factors (L, 2, B) that drop nothing."""
    return torch.ones(len(vit.blocks), 2, len(images), dtype=images.dtype)
