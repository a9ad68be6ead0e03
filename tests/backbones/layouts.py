"""The same ViT in the layouts of other libraries: each function turns timm's tensors into a file's."""

from __future__ import annotations

import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Weights = dict[str, Tensor]
Arrays = dict[str, NDArray[np.float32]]


def replaced(state: Weights, *pairs: tuple[str, str]) -> Weights:
    """Return tensors with each pattern replaced in every name, in order."""
    renamed = {}
    for key, value in state.items():
        for pattern, new in pairs:
            key = re.sub(pattern, new, key)
        renamed[key] = value
    return renamed


def split_qkv(state: Weights, query: str, key: str, value: str) -> Weights:
    """Return tensors with the fused projection of every block split in three."""
    split: Weights = {}
    for name, tensor in state.items():
        if ".qkv." not in name:
            split[name] = tensor
            continue
        for part, chunk in zip((query, key, value), tensor.chunk(3), strict=True):
            split[name.replace(".attn.qkv.", f".{part}.")] = chunk
    return split


def hugging_face(state: Weights) -> Weights:
    """Return the tensors in the layout of transformers' ``ViTForImageClassification``."""
    renamed = _in_transformers(
        state,
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    )
    classifier = {"classifier.weight": torch.zeros(10, 64), "classifier.bias": torch.zeros(10)}
    return {f"vit.{key}": value for key, value in renamed.items()} | classifier


def hugging_face_dinov2(state: Weights) -> Weights:
    """Return the tensors in the layout of transformers' ``Dinov2Model``, with or without registers and gated MLPs."""
    renamed = _in_transformers(
        with_register_positions(state),
        (r"\.ls([12])\.gamma", r".layer_scale\1.lambda1"),
        (r"^register_tokens", "embeddings.register_tokens"),
        *(((r"\.fc1\.", ".weights_in."), (r"\.fc2\.", ".weights_out.")) if _is_gated(state) else ()),
    )
    return renamed | {"embeddings.mask_token": torch.zeros(1, 64)}


def dinov2(state: Weights) -> Weights:
    """Return the tensors as Meta's DINOv2 stores them, with or without registers and gated MLPs."""
    gated = ((r"\.fc1\.", ".w12."), (r"\.fc2\.", ".w3.")) if _is_gated(state) else ()
    return replaced(with_register_positions(state), *gated) | {"mask_token": torch.zeros(1, 64)}


def with_register_positions(state: Weights) -> Weights:
    """Return the tensors with a position for the class token, which timm adds to that token beside registers."""
    if "reg_token" not in state:
        return state
    others = {key: value for key, value in state.items() if key != "reg_token"}
    position = torch.full_like(state["cls_token"], 0.5)
    return others | {
        "register_tokens": state["reg_token"],
        "cls_token": state["cls_token"] - position,
        "pos_embed": torch.cat([position, state["pos_embed"]], dim=1),
    }


def _is_gated(state: Weights) -> bool:
    """Return whether the first layer of an MLP has more outputs than the second has inputs."""
    return len(state["blocks.0.mlp.fc1.weight"]) > state["blocks.0.mlp.fc2.weight"].shape[1]


def _in_transformers(state: Weights, *pairs: tuple[str, str]) -> Weights:
    """Return tensors under the names that ViTs of transformers have in common, then with ``pairs`` replaced."""
    return replaced(
        split_qkv(state, *(f"attention.attention.{part}" for part in ("query", "key", "value"))),
        (r"^cls_token", "embeddings.cls_token"),
        (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        *pairs,
    )


def openai_clip(state: Weights) -> Weights:
    """Return the tensors in the layout of OpenAI's CLIP, with a text tower beside them."""
    renamed = replaced(
        state,
        (r"^cls_token", "class_embedding"),
        (r"^pos_embed", "positional_embedding"),
        (r"^patch_embed\.proj", "conv1"),
        (r"^norm_pre\.", "ln_pre."),
        (r"^norm\.", "ln_post."),
        (r"^blocks\.", "transformer.resblocks."),
        (r"\.norm([12])\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".attn.in_proj_"),
        (r"\.attn\.proj\.", ".attn.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    )
    renamed["class_embedding"] = renamed["class_embedding"].flatten()
    renamed["positional_embedding"] = renamed["positional_embedding"][0]
    text = {
        "positional_embedding": torch.zeros(77, 32),
        "transformer.resblocks.0.ln_1.weight": torch.zeros(32),
        "ln_final.weight": torch.zeros(32),
        "token_embedding.weight": torch.zeros(100, 32),
        "logit_scale": torch.tensor(4.6),
        "input_resolution": torch.tensor(224),
        "vocab_size": torch.tensor(100),
    }
    visual = {f"visual.{key}": value for key, value in renamed.items()} | {"visual.proj": torch.zeros(64, 32)}
    return {key: value.half() if value.is_floating_point() else value for key, value in (visual | text).items()}


def hugging_face_clip(state: Weights) -> Weights:
    """Return the tensors in the layout of transformers' ``CLIPModel``, with a text tower beside them."""
    parts = (f"self_attn.{part}_proj" for part in "qkv")
    renamed = replaced(
        split_qkv(state, *parts),
        (r"^cls_token", "embeddings.class_embedding"),
        (r"^pos_embed", "embeddings.position_embedding.weight"),
        (r"^patch_embed\.proj", "embeddings.patch_embedding"),
        (r"^norm_pre\.", "pre_layrnorm."),
        (r"^norm\.", "post_layernorm."),
        (r"^blocks\.", "encoder.layers."),
        (r"\.norm([12])\.", r".layer_norm\1."),
        (r"\.attn\.proj\.", ".self_attn.out_proj."),
    )
    renamed["embeddings.class_embedding"] = renamed["embeddings.class_embedding"].flatten()
    renamed["embeddings.position_embedding.weight"] = renamed["embeddings.position_embedding.weight"][0]
    renamed["embeddings.position_ids"] = torch.arange(101)[None]
    text = {
        "text_model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(32, 32),
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "visual_projection.weight": torch.zeros(32, 64),
    }
    return {f"vision_model.{key}": value for key, value in renamed.items()} | text


def hugging_face_siglip(state: Weights) -> Weights:
    """Return the tensors in the layout of transformers' ``SiglipVisionModel``, which has no class token."""
    parts = (f"self_attn.{part}_proj" for part in "qkv")
    renamed = replaced(
        split_qkv(_with_fused_pool(state), *parts),
        (r"^pos_embed", "embeddings.position_embedding.weight"),
        (r"^patch_embed\.proj", "embeddings.patch_embedding"),
        (r"^norm\.", "post_layernorm."),
        (r"^blocks\.", "encoder.layers."),
        (r"\.norm([12])\.", r".layer_norm\1."),
        (r"\.attn\.proj\.", ".self_attn.out_proj."),
        (r"^attn_pool\.latent", "head.probe"),
        (r"^attn_pool\.in_proj_", "head.attention.in_proj_"),
        (r"^attn_pool\.proj\.", "head.attention.out_proj."),
        (r"^attn_pool\.norm\.", "head.layernorm."),
        (r"^attn_pool\.mlp\.", "head.mlp."),
    )
    renamed["embeddings.position_embedding.weight"] = renamed["embeddings.position_embedding.weight"][0]
    return {f"vision_model.{key}": value for key, value in renamed.items()}


def _with_fused_pool(state: Weights) -> Weights:
    """Return tensors with the three projections of an attention pool fused, as torch's attention stores them."""
    if "attn_pool.q.weight" not in state:
        return state
    others = {key: value for key, value in state.items() if not re.match(r"attn_pool\.k?[qv]\.", key)}
    fused = {
        f"attn_pool.in_proj_{kind}": torch.cat([state[f"attn_pool.q.{kind}"], state[f"attn_pool.kv.{kind}"]])
        for kind in ("weight", "bias")
    }
    return others | fused


def open_clip(state: Weights) -> Weights:
    """Return the tensors as open_clip stores a tower of timm, with a text tower beside it."""
    text = {"positional_embedding": torch.zeros(77, 32), "visual.head.proj.weight": torch.zeros(32, 64)}
    return {f"visual.trunk.{key}": value for key, value in state.items()} | text


def mae(state: Weights) -> Weights:
    """Return the tensors beside those of MAE's decoder."""
    decoder = {
        "mask_token": torch.zeros(1, 1, 32),
        "decoder_pos_embed": torch.zeros(1, 101, 32),
        "decoder_embed.weight": torch.zeros(32, 64),
        "decoder_blocks.0.norm1.weight": torch.zeros(32),
        "decoder_pred.bias": torch.zeros(768),
    }
    return state | decoder


def ship(state: Weights) -> Weights:
    """Return the tensors as the official SHIP stores them, with trained prompts and a head."""
    prompts = {
        "compound_prompts_visual.0": torch.zeros(1, 4, 64),
        "compound_prompts_visual.1": torch.zeros(1, 4, 64),
        "semantic_share_prompt": torch.zeros(10, 64),
        "attribute_prompt": torch.zeros(2, 10, 64),
        "visual_prompt_token_pos_embed": torch.zeros(1, 1, 64),
        "head.weight": torch.zeros(5, 64),
        "head.bias": torch.zeros(5),
    }
    return split_qkv(state, "attn.q", "attn.k", "attn.v") | prompts


def vpt(state: Weights) -> Weights:
    """Return the tensors as the official VPT stores them, with trained prompts and a head."""
    parts = (f"attn.{part}" for part in ("query", "key", "value"))
    renamed = replaced(
        split_qkv(state, *parts),
        (r"^cls_token", "embeddings.cls_token"),
        (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings"),
        (r"^norm\.", "encoder.encoder_norm."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.norm1\.", ".attention_norm."),
        (r"\.norm2\.", ".ffn_norm."),
        (r"\.attn\.proj\.", ".attn.out."),
        (r"\.mlp\.", ".ffn."),
    )
    renamed |= {"prompt_embeddings": torch.zeros(1, 4, 64), "deep_prompt_embeddings": torch.zeros(5, 4, 64)}
    head = {"head.last_layer.weight": torch.zeros(5, 64), "head.last_layer.bias": torch.zeros(5)}
    return {f"enc.transformer.{key}": value for key, value in renamed.items()} | head


def google(state: Weights, heads: int, *, big_vision: bool = False) -> Arrays:
    """Return arrays in the layout of Google's ViT or of big_vision, without the prefix of the whole tree."""
    attention, norm2, mlp = (
        ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
        if big_vision
        else ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
    )
    renamed = replaced(
        split_qkv(_with_split_pool(state), *(f"{attention}.{part}" for part in ("query", "key", "value"))),
        (r"^cls_token", "cls"),
        (r"^pos_embed", "pos_embedding" if big_vision else "Transformer.posembed_input.pos_embedding"),
        (r"^patch_embed\.proj", "embedding"),
        (r"^norm\.weight", "Transformer.encoder_norm.scale"),
        (r"^norm\.bias", "Transformer.encoder_norm.bias"),
        (r"^blocks\.(\d+)", r"Transformer.encoderblock_\1"),
        (r"\.norm1\.weight", ".LayerNorm_0.scale"),
        (r"\.norm1\.", ".LayerNorm_0."),
        (r"\.norm2\.weight", f".{norm2}.scale"),
        (r"\.norm2\.", f".{norm2}."),
        (r"\.attn\.proj\.", f".{attention}.out."),
        (r"\.mlp\.fc1\.", f".{mlp}.Dense_0."),
        (r"\.mlp\.fc2\.", f".{mlp}.Dense_1."),
        (r"^attn_pool\.latent", "MAPHead_0.probe"),
        (r"^attn_pool\.norm\.weight", "MAPHead_0.LayerNorm_0.scale"),
        (r"^attn_pool\.norm\.", "MAPHead_0.LayerNorm_0."),
        (r"^attn_pool\.(query|key|value)\.", r"MAPHead_0.MultiHeadDotProductAttention_0.\1."),
        (r"^attn_pool\.proj\.", "MAPHead_0.MultiHeadDotProductAttention_0.out."),
        (r"^attn_pool\.", "MAPHead_0."),
        (r"weight$", "kernel"),
    )
    return {key.replace(".", "/"): _flax(key, value.numpy(), heads) for key, value in renamed.items()}


def _with_split_pool(state: Weights) -> Weights:
    """Return tensors with the projections of an attention pool named and separate."""
    split: Weights = {}
    for name, tensor in state.items():
        if name.startswith("attn_pool.kv."):
            for part, chunk in zip(("key", "value"), tensor.chunk(2), strict=True):
                split[name.replace(".kv.", f".{part}.")] = chunk
        else:
            split[name.replace("attn_pool.q.", "attn_pool.query.")] = tensor
    return split


def _flax(key: str, value: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    if key == "embedding.kernel":
        return value.transpose(2, 3, 1, 0)
    if key.endswith((".query.kernel", ".key.kernel", ".value.kernel")):
        return value.T.reshape(value.shape[1], heads, -1)
    if key.endswith((".query.bias", ".key.bias", ".value.bias")):
        return value.reshape(heads, -1)
    if key.endswith(".out.kernel"):
        return value.T.reshape(heads, -1, value.shape[0])
    return value.T if key.endswith("kernel") else value


def scanned(arrays: Arrays) -> Arrays:
    """Return arrays with those of all blocks stacked along a new first axis, as a scanned encoder has them."""
    blocks: dict[str, list[NDArray[np.float32]]] = {}
    others = {}
    for key, value in arrays.items():
        if "encoderblock_" in key:
            blocks.setdefault(re.sub(r"encoderblock_\d+", "encoderblock", key), []).append(value)
        else:
            others[key] = value
    return others | {key: np.stack(values) for key, values in blocks.items()}
