"""The attention equations, on the frozen projections of a timm ``Attention``.

Shapes: H heads of width d, D = H d; queries, keys and values are (B, H, tokens, d).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from torch import Tensor

from shipbench.prompting.few_keys import attend_to_few
from shipbench.prompting.full_precision import at_least_float32, full_precision

# From about so many keys on, if all images share them, fused attention is the faster on a CPU.
_FEW = 128


def split_heads(attention: Attention, projected: Tensor) -> Tensor:
    """Turn (B, T, D) into (B, H, T, d)."""
    batch, length, _ = projected.shape
    return projected.view(batch, length, attention.num_heads, attention.head_dim).transpose(1, 2)


def _project(attention: Attention, tokens: Tensor, start: int, end: int) -> tuple[Tensor, ...]:
    """Apply parts ``start`` to ``end`` of the fused projection, whose rows are q, k, v in this order."""
    width = attention.num_heads * attention.head_dim
    rows = slice(start * width, end * width)
    bias = attention.qkv.bias
    projected = F.linear(tokens, attention.qkv.weight[rows], None if bias is None else bias[rows])
    return tuple(split_heads(attention, part) for part in projected.split(width, dim=-1))


def project_qkv(attention: Attention, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of normalised ``tokens`` (B, T, D)."""
    query, key, value = _project(attention, tokens, 0, 3)
    return attention.q_norm(query), attention.k_norm(key), value


def project_q(attention: Attention, tokens: Tensor) -> Tensor:
    """Return the queries alone."""
    (query,) = _project(attention, tokens, 0, 1)
    return attention.q_norm(query)


def project_kv(attention: Attention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values alone."""
    key, value = _project(attention, tokens, 1, 3)
    return attention.k_norm(key), value


def per_image(states: Tensor, images: int) -> Tensor:
    """Turn states (S, ...), which the images see in S equal and consecutive shares, into (B, ...)."""
    count, *rest = states.shape
    return states.unsqueeze(1).expand(count, images // count, *rest).flatten(0, 1)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, (B, H, T, d); every image has keys and values (B, H, P, d) of its own."""
    return F.scaled_dot_product_attention(query, key, value)


def attend_to_prompts(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, (B, H, T, d); keys and values (S, H, P, d) are shared by B / S images each.

    Keys see the queries of all their images as one long sequence: nothing is repeated, and the gradient of a key is
    summed where it is made.
    """
    if query.device.type == "cpu" and query.dtype.itemsize >= 4 and (len(key) > 1 or key.shape[2] <= _FEW):
        return attend_to_few(query, key, value)
    by_state = query.unflatten(0, (len(key), -1)).transpose(1, 2)
    out = F.scaled_dot_product_attention(by_state.flatten(2, 3), key, value)
    return out.view_as(by_state).transpose(1, 2).flatten(0, 1)


def attend_decoupled(
    query: Tensor, image: tuple[Tensor, Tensor], prompts: tuple[Tensor, Tensor] | None, scale: float
) -> Tensor:
    """Return (1 - s) softmax(q k_i^T) v_i + s softmax(q k_p^T) v_p; without prompts, plain attention."""
    to_image = attend(query, *image)
    return to_image if prompts is None else torch.lerp(to_image, attend_to_prompts(query, *prompts), scale)


def attend_jointly(query: Tensor, image: tuple[Tensor, Tensor], prompts: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return one softmax over image and prompt tokens."""
    if prompts is None:
        return attend(query, *image)
    batch = image[0].shape[0]
    key, value = (torch.cat([i, per_image(p, batch)], dim=2) for i, p in zip(image, prompts, strict=True))
    return attend(query, key, value)


def project_out(attention: Attention, heads_out: Tensor) -> Tensor:
    """Merge heads (B, H, T, d) and apply the output projection: (B, T, D)."""
    return merge_and_project(attention, heads_out.transpose(1, 2).flatten(2))


def merge_and_project(attention: Attention, merged: Tensor) -> Tensor:
    """Apply the output projection to merged heads (B, T, D)."""
    # Early releases of timm 1.0 have no norm between attention and projection.
    norm = getattr(attention, "norm", None)
    return attention.proj(merged if norm is None else norm(merged))


@torch.no_grad()
def cls_scores(attention: Attention, cls_query: Tensor, key: Tensor) -> Tensor:
    """Return the CLS token's attention logits over the image tokens, (B, N), before the softmax, mean over heads.

    ``cls_query`` is (B, H, 1, d). The mean of the heads' dot products is one dot product over all D. Never rounded to
    bf16, where scores that differ would be equal, and their order is what they are for.
    """
    with full_precision(key.device):
        scores = torch.einsum("bhqd,bhnd->bn", at_least_float32(cls_query), at_least_float32(key))
    return scores * (attention.scale / attention.num_heads)
