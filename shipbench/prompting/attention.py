"""The attention equations, on the frozen projections of a timm ``Attention``.

Shapes: H heads of width d, D = H d; queries, keys and values are (B, H, tokens, d).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from torch import Tensor

from shipbench.prompting.architectures import qkv_parameters, rotated
from shipbench.prompting.full_precision import at_least_float32, full_precision
from shipbench.prompting.kernels import attend, gains_in_bf16, in_bf16, is_few, is_fused
from shipbench.prompting.short_gradients import mix
from shipbench.prompting.written_out import attend_apart_in_products, attend_in_products

KeyValue = tuple[Tensor, Tensor]


def split_heads(attention: Attention, projected: Tensor) -> Tensor:
    """Turn (B, T, D) into (B, H, T, d)."""
    batch, length, width = projected.shape
    return projected.view(batch, length, attention.num_heads, width // attention.num_heads).transpose(1, 2)


def _project(attention: Attention, tokens: Tensor, start: int, end: int) -> Tensor:
    """Apply projections ``start`` to ``end`` of the fused q, k, v to (..., D), side by side in the result."""
    width = attention.proj.in_features
    rows = slice(start * width, end * width)
    weight, bias = qkv_parameters(attention)
    return F.linear(tokens, weight[rows], None if bias is None else bias[rows])


def _heads(attention: Attention, projected: Tensor) -> tuple[Tensor, ...]:
    """Split projections (B, T, n D) that lie side by side; each of the n results is (B, H, T, d)."""
    width = attention.proj.in_features
    return tuple(split_heads(attention, part) for part in projected.split(width, dim=-1))


def project_qkv(attention: Attention, tokens: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, each (B, H, T, d), of normalised ``tokens`` (B, T, D).

    Queries and keys are rotated by the rotary ``positions``, if there are any.
    """
    query, key, value = queries_keys_and_values(attention, project_qkv_rows(attention, tokens))
    return rotated(attention, query, positions), rotated(attention, key, positions), value


def project_qkv_rows(attention: Attention, rows: Tensor) -> Tensor:
    """Return queries, keys and values of normalised ``rows`` (..., D) side by side, (..., 3 D)."""
    return _project(attention, rows, 0, 3)


def queries_keys_and_values(attention: Attention, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, each (B, H, T, d), of ``rows`` (B, T, 3 D) from ``project_qkv_rows``."""
    query, key, value = _heads(attention, rows)
    return attention.q_norm(query), attention.k_norm(key), value


def project_q(attention: Attention, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
    """Return only the queries (B, H, T, d) of normalised ``tokens`` (B, T, D), rotated by ``positions``."""
    (query,) = _heads(attention, _project(attention, tokens, 0, 1))
    return rotated(attention, attention.q_norm(query), positions)


def project_kv(attention: Attention, tokens: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return only keys and values, each (B, H, T, d), of normalised ``tokens`` (B, T, D), keys rotated."""
    key, value = keys_and_values(attention, project_kv_rows(attention, tokens))
    return rotated(attention, key, positions), value


def project_kv_rows(attention: Attention, rows: Tensor) -> Tensor:
    """Return keys and values of normalised ``rows`` (..., D) side by side, (..., 2 D), for ``keys_and_values``."""
    return _project(attention, rows, 1, 3)


def keys_and_values(attention: Attention, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values, each (B, H, T, d), of ``rows`` (B, T, 2 D) from ``project_kv_rows``."""
    key, value = _heads(attention, rows)
    return attention.k_norm(key), value


def per_image(states: Tensor, images: int) -> Tensor:
    """Repeat each of the S ``states`` (S, ...) for the B / S consecutive images that share it: (B, ...).

    A single state is not copied.
    """
    count, *rest = states.shape
    return states.unsqueeze(1).expand(count, images // count, *rest).flatten(0, 1)


def attend_to_prompts(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, (B, H, T, d); B / S consecutive images share keys and values (S, H, P, d).

    On a CPU, the queries of all images that share a state form one long sequence, so keys and values are not repeated
    and their gradients are summed inside the kernel. A GPU's fused kernel divides its backward pass by head and by
    group of keys, and would leave most of the GPU idle with one sequence; there, each image refers to the same keys.
    """
    if is_fused(query.device):
        images = query.shape[0]
        return attend(query, per_image(key, images), per_image(value, images))
    if is_few(key):
        return attend_in_products(query, key, value)
    by_state = query.unflatten(0, (len(key), -1)).transpose(1, 2)
    out = F.scaled_dot_product_attention(by_state.flatten(2, 3), key, value)
    return out.view_as(by_state).transpose(1, 2).flatten(0, 1)


def attend_decoupled(query: Tensor, image: KeyValue, prompts: KeyValue | None, scale: float | Tensor) -> Tensor:
    """Return (1 - s) softmax(q k_i^T / sqrt(d)) v_i + s softmax(q k_p^T / sqrt(d)) v_p, (B, H, T, d).

    This is the decoupled attention of SHIP with s = ``scale``, image tokens i and prompt tokens p. Without prompts, it
    is plain attention to the image.
    """
    if prompts is None:
        return attend(query, *image)
    if not isinstance(scale, Tensor) and gains_in_bf16(query, *image) and is_few(prompts[0]):
        query, key, value, *of_prompts = in_bf16(query, *image, *prompts)
        return attend_apart_in_products(query, (key, value), (of_prompts[0], of_prompts[1]), scale)
    to_image = attend(query, *image)
    weight = scale.to(to_image.dtype) if isinstance(scale, Tensor) else scale
    return mix(to_image, attend_to_prompts(query, *prompts), weight)


def attend_jointly(query: Tensor, image: KeyValue, prompts: KeyValue | None) -> Tensor:
    """Return softmax(q [k_i, k_p]^T / sqrt(d)) [v_i, v_p], (B, H, T, d): one softmax over image and prompt tokens."""
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
    return attention.proj(_normed(attention, merged))


def merge_heads(attention: Attention, heads_out: Tensor) -> Tensor:
    """Merge heads (B, H, T, d) into the input of the output projection: (B, T, D)."""
    return _normed(attention, heads_out.transpose(1, 2).flatten(2))


def _normed(attention: Attention, merged: Tensor) -> Tensor:
    # Early releases of timm 1.0 have no norm between attention and projection.
    norm = getattr(attention, "norm", None)
    return merged if norm is None else norm(merged)


@torch.no_grad()
def cls_scores(attention: Attention, cls_query: Tensor, key: Tensor) -> Tensor:
    """Return the CLS token's attention logits q_cls k^T / sqrt(d), averaged over heads: (B, N), without gradient.

    ``cls_query`` is (B, H, 1, d), ``key`` (B, H, N, d). The result has at least float32 precision, also under
    autocast: callers rank tokens by these scores, and bf16 would round different scores to equal ones.
    """
    # The sum of the heads' dot products is one dot product over all D channels.
    queries, keys = (at_least_float32(heads.transpose(1, 2)).flatten(2) for heads in (cls_query, key))
    with full_precision(key.device):
        scores = torch.bmm(keys, queries.transpose(1, 2)).squeeze(2)
    return scores * (attention.scale / attention.num_heads)
