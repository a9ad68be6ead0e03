"""The golden numbers of the official implementations, and the map from official names to ours.

The folder is ``$SHIPBENCH_GOLDEN``, else ``../shared/golden`` next to the repository; without it, tests are skipped.
"""

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

ENVIRONMENT_VARIABLE = "SHIPBENCH_GOLDEN"
NEIGHBOUR = Path(__file__).resolve().parents[3] / "shared" / "golden"

Tensors = dict[str, Tensor]


def golden_file(name: str) -> Path:
    """The path of a golden file; without the folder, the test is skipped, or fails if the variable is set."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    folder = Path(chosen) if chosen else NEIGHBOUR
    if not folder.is_dir():
        if chosen:
            pytest.fail(f"{ENVIRONMENT_VARIABLE}={chosen} is not a folder")
        pytest.skip(f"no golden numbers: {folder} is absent and {ENVIRONMENT_VARIABLE} is not set")
    return folder / name


def tensors(name: str) -> Tensors:
    """All tensors of ``name``.safetensors, cached: do not modify them."""
    return _load_tensors(golden_file(f"{name}.safetensors"))


def header(name: str) -> dict[str, Any]:
    """The content of ``name``.json."""
    return _load_json(golden_file(f"{name}.json"))


def published_results() -> list[dict[str, Any]]:
    """The authors' results by task: threshold, levels, prompt length, parameter count."""
    results: list[dict[str, Any]] = _load_json(golden_file("../published/ship_results.json"))["results"]
    return results


@cache
def _load_tensors(path: Path) -> Tensors:
    return load_file(path)


@cache
def _load_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def under(prefix: str, everything: Tensors) -> Tensors:
    """The tensors whose names start with ``prefix.``, with the prefix removed."""
    start = f"{prefix}."
    return {name[len(start) :]: value for name, value in everything.items() if name.startswith(start)}


def to_dtype(values: Tensors, dtype: torch.dtype) -> Tensors:
    """Floating-point tensors converted to ``dtype``; integer tensors unchanged."""
    return {name: v.to(dtype) if v.is_floating_point() else v for name, v in values.items()}


# Official names -> ours (the backbone's are timm's)

SHIP_UNUSED = "visual_prompt_token_pos_embed"


def ship_parameters(official: Tensors) -> Tensors:
    """The trained tensors of an official SHIP state, or their gradients, with our names and shapes."""
    names = {"semantic_share_prompt": "prompts.shared", "attribute_prompt": "prompts.attribute"}
    ours: Tensors = {}
    for name, value in official.items():
        if match := re.fullmatch(r"compound_prompts_visual\.(\d+)", name):
            ours[f"prompts.independent.{match[1]}"] = value[0]
        elif name in names or name.startswith("head."):
            ours[names.get(name, name)] = value
    return ours


def vpt_parameters(official: Tensors) -> Tensors:
    """The trained tensors of an official VPT state, or their gradients, with our names and shapes."""
    start = "enc.transformer."
    ours = {name.replace("head.last_layer", "head"): v for name, v in official.items() if name.startswith("head.")}
    tokens = [f"{start}prompt_embeddings", f"{start}deep_prompt_embeddings"]
    if tokens[0] in official:
        ours["prompts.tokens"] = torch.cat([official[name] for name in tokens if name in official])
    for kind in ("weight", "bias"):
        if f"{start}prompt_proj.{kind}" in official:
            ours[f"prompts.projection.{kind}"] = official[f"{start}prompt_proj.{kind}"]
    return ours


def fuse_qkv(values: Tensors, names: tuple[str, str, str]) -> Tensors:
    """Join the three separate projections of every block into timm's ``qkv``."""
    query, key, value = (f".attn.{name}." for name in names)
    fused = {name: v for name, v in values.items() if not any(part in name for part in (query, key, value))}
    for name in [name for name in values if query in name]:
        parts = [values[name.replace(query, part)] for part in (query, key, value)]
        fused[name.replace(query, ".attn.qkv.")] = torch.cat(parts)
    return fused


def ship_backbone_weights(official: Tensors) -> Tensors:
    """The frozen tensors of an official SHIP state with timm's names."""
    trained = ("compound_prompts", "semantic_share", "attribute_prompt", "head.", SHIP_UNUSED)
    frozen = {name: value for name, value in official.items() if not name.startswith(trained)}
    return fuse_qkv(frozen, ("q", "k", "v"))


def vpt_backbone_weights(official: Tensors) -> Tensors:
    """The backbone's tensors of an official VPT state, or their gradients, with timm's names."""
    replacements = {
        "enc.transformer.embeddings.patch_embeddings": "patch_embed.proj",
        "enc.transformer.embeddings.cls_token": "cls_token",
        "enc.transformer.embeddings.position_embeddings": "pos_embed",
        "enc.transformer.encoder.layer": "blocks",
        "enc.transformer.encoder.encoder_norm": "norm",
        "attention_norm": "norm1",
        "ffn_norm": "norm2",
        "attn.out": "attn.proj",
        ".ffn.": ".mlp.",
    }
    renamed: Tensors = {}
    for name, value in official.items():
        if "prompt" in name or name.startswith("head."):
            continue
        for old, new in replacements.items():
            name = name.replace(old, new)
        renamed[name] = value
    return fuse_qkv(renamed, ("query", "key", "value"))


def tiny_backbone(weights: Tensors, dtype: torch.dtype) -> VisionTransformer:
    """The headless tiny ViT of the golden files (224 px, patch 16, D 48, 4 heads, 12 blocks) with ``weights``."""
    vit = VisionTransformer(224, 16, num_classes=0, embed_dim=48, depth=12, num_heads=4, weight_init="skip")
    vit.load_state_dict(weights, strict=True)
    return vit.to(dtype).eval().requires_grad_(False)
