"""What differs between timm's ``VisionTransformer`` and ``Eva``: where weights lie, and rotary positions.

``Eva`` holds ViTs with rotary positions, such as DINOv3. Patch tokens carry them in their queries and keys; class,
register and prompt tokens do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timm.layers import AttentionRope, apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import Tensor


def qkv_parameters(attention: Any) -> tuple[Tensor, Tensor | None]:
    """Return the weight (3 D, D) and the bias (3 D) of the fused q, k, v projection; the bias may be None."""
    if not isinstance(attention, (EvaAttention, AttentionRope)):
        return attention.qkv.weight, attention.qkv.bias
    if attention.qkv is None:
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        biases = [torch.zeros_like(part.weight[:, 0]) if part.bias is None else part.bias for part in parts]
        has_bias = any(part.bias is not None for part in parts)
        return torch.cat([part.weight for part in parts]), torch.cat(biases) if has_bias else None
    if isinstance(attention, EvaAttention) and attention.q_bias is not None:
        return attention.qkv.weight, torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    return attention.qkv.weight, attention.qkv.bias


def scale_attention(block: Any, branch: Tensor) -> Tensor:
    """Apply the layer scale of a block's attention, if it has one."""
    if isinstance(block, EvaBlock):
        return branch if block.gamma_1 is None else block.gamma_1 * branch
    return block.ls1(branch)


def scale_mlp(block: Any, branch: Tensor) -> Tensor:
    """Apply the layer scale of a block's MLP, if it has one."""
    if isinstance(block, EvaBlock):
        return branch if block.gamma_2 is None else block.gamma_2 * branch
    return block.ls2(branch)


def add_positions(vit: Any, patches: Tensor) -> Tensor:
    """Return the image tokens (B, N, D) that enter the first block, from embedded ``patches``."""
    if isinstance(vit, Eva):
        tokens, _ = vit._pos_embed(patches)
        return vit.norm_pre(tokens)
    return vit.norm_pre(vit.patch_drop(vit._pos_embed(patches)))


def rotary_positions(vit: Any) -> Tensor | None:
    """Return sines and cosines (N, 2 d) of all image tokens, which leave class and register tokens as they are.

    None without rotary positions.
    """
    if not isinstance(vit, Eva) or vit.rope is None:
        return None
    fixed = hasattr(vit.rope, "feat_shape") and not vit.dynamic_img_size
    patches = vit.rope.get_embed() if fixed else vit.rope.get_embed(shape=vit.patch_embed.grid_size)
    sine, cosine = patches.new_zeros(vit.num_prefix_tokens, patches.shape[1]).chunk(2, dim=1)
    return torch.cat([torch.cat([sine, cosine + 1], dim=1), patches])


def rotated(attention: Any, heads: Tensor, positions: Tensor | None) -> Tensor:
    """Rotate queries or keys (B, H, T, d) by ``positions`` (T, 2 d), or (B, 1, T, 2 d) if they differ by image."""
    if positions is None:
        return heads
    return apply_rot_embed_cat(heads, positions, half=attention.rotate_half).type_as(heads)


def block_outputs(vit: Any, images: Tensor) -> Iterator[Tensor]:
    """Yield the image tokens (B, N, D) after each block of a ViT without prompts."""
    tokens, positions = add_positions(vit, vit.patch_embed(images)), rotary_positions(vit)
    patches = None if positions is None else positions[vit.num_prefix_tokens :]
    for block in vit.blocks:
        tokens = block(tokens) if patches is None else block(tokens, rope=patches)
        yield tokens


def image_token_count(vit: Any) -> int:
    """Return the number of tokens of an image: its patches, and the class and register tokens."""
    return int(vit.patch_embed.num_patches + vit.num_prefix_tokens)


def reads_class_token(vit: Any) -> bool:
    """Return whether a ViT classifies from its class token; others pool their tokens."""
    # Early releases of timm 1.0 have no attention pool in Eva.
    return vit.global_pool == "token" and getattr(vit, "attn_pool", None) is None
