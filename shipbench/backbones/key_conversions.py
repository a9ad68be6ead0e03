"""Conversions of the tensors of a ViT from other namings to timm's."""

from __future__ import annotations

import math
import re
from typing import TypeAlias

import torch
from torch import Tensor

Weights: TypeAlias = dict[str, Tensor]
# Patterns of whole names, and their replacements.
Rules: TypeAlias = tuple[tuple[str, str], ...]


def _renamed(rules: Rules, weights: Weights) -> Weights:
    """Return tensors with the first fitting rule (a pattern of whole names, its replacement) applied to each name."""
    return {_name(rules, key): value for key, value in weights.items()}


def _name(rules: Rules, key: str) -> str:
    for pattern, new in rules:
        match = re.fullmatch(pattern, key)
        if match is not None:
            return match.expand(new)
    return key


def timm_name_of_vpt(key: str) -> str:
    """Return timm's name for a key of the official VPT's encoder, or the key itself if it belongs to no backbone."""
    return _name(_VPT_RULES, key)


def fuse(weights: Weights, query: str = "q", key: str = "k", value: str = "v") -> Weights:
    """Return tensors with ``blocks.N.attn.q``, ``k`` and ``v`` concatenated to ``qkv`` where all three are present.

    Those of an attention pool (``attn_pool.q`` and so on) are concatenated too.
    """
    fused = dict(weights)
    for name in weights:
        match = re.fullmatch(rf"(blocks\.\d+\.attn\.|attn_pool\.){query}\.(weight|bias)", name)
        if match is None:
            continue
        parts = [f"{match[1]}{part}.{match[2]}" for part in (query, key, value)]
        target = f"{match[1]}qkv.{match[2]}"
        if target not in weights and all(part in weights for part in parts):
            fused[target] = torch.cat([fused.pop(part) for part in parts])
    return fused


def _split_pool(weights: Weights) -> Weights:
    """Return tensors with ``attn_pool.qkv`` split into ``q`` and ``kv``, as timm stores an attention pool."""
    split = dict(weights)
    for kind in ("weight", "bias"):
        fused = split.pop(f"attn_pool.qkv.{kind}", None)
        if fused is not None:
            width = fused.shape[0] // 3
            split |= {f"attn_pool.q.{kind}": fused[:width], f"attn_pool.kv.{kind}": fused[width:]}
    return split


_TIMM_RULES = (
    # DINOv2 stores its blocks in chunks while it trains; the inner number counts through.
    (r"blocks\.\d+\.(\d+)\.(.+)", r"blocks.\1.\2"),
    (r"(blocks\.\d+)\.gamma_([12])", r"\1.ls\2.gamma"),
    (r"(blocks\.\d+)\.mlp\.w12\.(.+)", r"\1.mlp.fc1.\2"),
    (r"(blocks\.\d+)\.mlp\.w3\.(.+)", r"\1.mlp.fc2.\2"),
)


def from_timm(weights: Weights) -> Weights:
    """Convert tensors under the names of timm, DINO, DINOv2, MAE or SHIP."""
    renamed = fuse(_renamed(_TIMM_RULES, weights))
    registers = renamed.pop("register_tokens", None)
    if registers is not None and {"cls_token", "pos_embed"} <= renamed.keys():
        # timm gives neither the class token nor the registers a position.
        positions = renamed.pop("pos_embed")
        renamed |= {"reg_token": registers, "cls_token": renamed["cls_token"] + positions[:, :1]}
        renamed["pos_embed"] = positions[:, 1:]
    return renamed


OPENAI_RULES = (
    (r"conv1\.(.+)", r"patch_embed.proj.\1"),
    (r"class_embedding", "cls_token"),
    (r"positional_embedding", "pos_embed"),
    (r"ln_pre\.(.+)", r"norm_pre.\1"),
    (r"ln_post\.(.+)", r"norm.\1"),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(.+)", r"blocks.\1.norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", r"blocks.\1.attn.qkv.\2"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.+)", r"blocks.\1.mlp.fc2.\2"),
)


HF_CLIP_RULES = (
    (r"embeddings\.class_embedding", "cls_token"),
    (r"embeddings\.patch_embedding\.(.+)", r"patch_embed.proj.\1"),
    (r"embeddings\.position_embedding\.weight", "pos_embed"),
    (r"pre_layrnorm\.(.+)", r"norm_pre.\1"),
    (r"post_layernorm\.(.+)", r"norm.\1"),
    (r"encoder\.layers\.(\d+)\.layer_norm([12])\.(.+)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(.+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.(\d+)\.mlp\.(.+)", r"blocks.\1.mlp.\2"),
    # SigLIP
    (r"head\.probe", "attn_pool.latent"),
    (r"head\.attention\.in_proj_(weight|bias)", r"attn_pool.qkv.\1"),
    (r"head\.attention\.out_proj\.(.+)", r"attn_pool.proj.\1"),
    (r"head\.layernorm\.(.+)", r"attn_pool.norm.\1"),
    (r"head\.mlp\.(.+)", r"attn_pool.mlp.\1"),
)


_HF_RULES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "register_tokens"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"layernorm\.(.+)", r"norm.\1"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(.+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)", r"blocks.\1.attn.proj.\2"),
    # ViT, DeiT and ViTMAE
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(.+)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(.+)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    # DINOv2
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_out\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.layer\.(\d+)\.(.+)", r"blocks.\1.\2"),
)


_VPT_RULES = (
    (r"embeddings\.patch_embeddings\.(.+)", r"patch_embed.proj.\1"),
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"encoder\.encoder_norm\.(.+)", r"norm.\1"),
    (r"encoder\.layer\.(\d+)\.attention_norm\.(.+)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.ffn_norm\.(.+)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.attn\.out\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.attn\.(query|key|value)\.(.+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.ffn\.(.+)", r"blocks.\1.mlp.\2"),
)


def from_clip(rules: Rules, weights: Weights) -> Weights:
    """Convert the vision tower of a CLIP, or of SigLIP, whose names follow ``rules``."""
    renamed = _split_pool(fuse(_renamed(rules, weights)))
    if "cls_token" in renamed:
        renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in renamed:
        renamed["pos_embed"] = renamed["pos_embed"].unsqueeze(0)
    patches = renamed.get("patch_embed.proj.weight")
    if patches is not None and patches.ndim == 2:
        renamed["patch_embed.proj.weight"] = _of_flat_patches(patches)
    return renamed


def _of_flat_patches(matrix: Tensor) -> Tensor:
    """Return the kernels (out, 3, P, P) in a matrix of SigLIP 2 NaFlex, whose patches end with the channels."""
    side = math.isqrt(matrix.shape[1] // 3)
    return matrix.reshape(-1, side, side, 3).permute(0, 3, 1, 2) if 3 * side**2 == matrix.shape[1] else matrix


def from_hugging_face(weights: Weights) -> Weights:
    """Convert a ViT, DeiT, ViTMAE or DINOv2 of the transformers library."""
    return from_timm(fuse(_renamed(_HF_RULES, weights), "query", "key", "value"))


def from_vpt(weights: Weights) -> Weights:
    """Convert the encoder of the official VPT repository."""
    return fuse(_renamed(_VPT_RULES, weights), "query", "key", "value")


_GOOGLE_NAMES = {
    "embedding.bias": "patch_embed.proj.bias",
    "cls": "cls_token",
    "Transformer.posembed_input.pos_embedding": "pos_embed",
    "pos_embedding": "pos_embed",
    "Transformer.encoder_norm.scale": "norm.weight",
    "Transformer.encoder_norm.bias": "norm.bias",
    "MAPHead_0.probe": "attn_pool.latent",
}


_GOOGLE_KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}


# The numbers of Flax's submodules: those of Google's first release, then big_vision's.
_GOOGLE_MODULES = {
    "LayerNorm_0": "norm1",
    "LayerNorm_1": "norm2",
    "LayerNorm_2": "norm2",
    "MultiHeadDotProductAttention_0": "attn",
    "MultiHeadDotProductAttention_1": "attn",
    "MlpBlock_0": "mlp",
    "MlpBlock_3": "mlp",
    "Dense_0": "fc1",
    "Dense_1": "fc2",
    "out": "proj",
}


# For names whose modules are timm's.
_GOOGLE_RULES = (
    (r"Transformer\.encoderblock_(\d+)\.(.+)", r"blocks.\1.\2"),
    (r"MAPHead_0\.attn\.(.+)", r"attn_pool.\1"),
    (r"MAPHead_0\.norm1\.(.+)", r"attn_pool.norm.\1"),
    (r"MAPHead_0\.mlp\.(.+)", r"attn_pool.mlp.\1"),
)


def from_google(weights: Weights) -> Weights:
    """Convert Flax's kernels (in, out), which attention splits by head, to timm's (out, in)."""
    converted: Weights = {}
    for key, value in _unscanned(weights).items():
        match = re.fullmatch(r"(Transformer\.encoderblock_\d+|MAPHead_0)\.(.+)\.(kernel|scale|bias)", key)
        if key == "embedding.kernel" and value.ndim == 4:
            converted["patch_embed.proj.weight"] = value.permute(3, 2, 0, 1)
        elif match is not None:
            modules = ".".join(_GOOGLE_MODULES.get(part, part) for part in match[2].split("."))
            name = f"{match[1]}.{modules}.{_GOOGLE_KINDS[match[3]]}"
            converted[_name(_GOOGLE_RULES, name)] = _google_matrix(modules, value)
        else:
            converted[_GOOGLE_NAMES.get(key, key)] = value
    if "pos_embed" in converted and converted["pos_embed"].ndim == 2:
        converted["pos_embed"] = converted["pos_embed"].unsqueeze(0)
    return _split_pool(fuse(converted, "query", "key", "value"))


def _unscanned(weights: Weights) -> Weights:
    """Return the blocks of a scanned encoder, whose tensors are stacked along their first axis, one by one."""
    single = {}
    for key, value in weights.items():
        if key.startswith("Transformer.encoderblock.") and value.ndim:
            for index, part in enumerate(value):
                single[key.replace("encoderblock", f"encoderblock_{index}", 1)] = part
        else:
            single[key] = value
    return single


def _google_matrix(modules: str, value: Tensor) -> Tensor:
    if modules == "attn.proj":
        return value.flatten(0, -2).T if value.ndim > 1 else value
    if modules.startswith("attn."):
        return value.flatten(1).T if value.ndim > 2 else value.flatten()
    return value.T if value.ndim == 2 else value
