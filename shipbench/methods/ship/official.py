"""Checkpoints in the naming of the official SHIP repository, and the published parameter counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shipbench.backbones.state_dicts import build_vit, fuse_qkv, read_state_dict
from shipbench.errors import InputError
from shipbench.methods.ship.config import ShipConfig
from shipbench.methods.ship.model import Ship

# The official code creates, trains and counts this position embedding, but its forward pass never reads it.
_UNUSED = "visual_prompt_token_pos_embed"


def load_official_checkpoint(
    state_dict: Mapping[str, Tensor] | str | Path,
    *,
    levels: Sequence[int],
    prototypes: Tensor | NDArray[np.floating],
    num_heads: int,
    image_size: int = 224,
    patch_size: int = 16,
) -> Ship:
    """Return a ``Ship`` with the weights of an official checkpoint (a state dict, or a file of one).

    ``levels`` are the blocks where its prompts enter; ``prototypes`` (C, D) is the attribute bank, which official
    checkpoints do not carry. Stochastic depth is 0. Raises ``InputError`` that names every missing or unexpected key.
    """
    what = "an official SHIP checkpoint"
    state = read_state_dict(state_dict)
    levels = [int(level) for level in levels]
    own_names = [f"compound_prompts_visual.{index}" for index in range(len(levels))]
    own_names += ["semantic_share_prompt", "attribute_prompt", "head.weight", "head.bias"]
    missing = [key for key in own_names if key not in state]
    own = {key: state.pop(key) for key in own_names if key in state}
    state.pop(_UNUSED, None)
    fused, unfused = fuse_qkv(state, "blocks.{index}.attn.{part}.{kind}", ("q", "k", "v"))
    backbone = build_vit(fused, num_heads, image_size, patch_size, what, also_missing=missing + unfused)
    model = Ship(backbone, len(own["head.bias"]), levels, torch.as_tensor(prototypes), _config(own, len(levels)))
    model.load_state_dict(_own_names(own, len(levels), model), strict=False)
    return model.eval()


def count_parameters(*, levels: Sequence[int], prompt_length: int, width: int, num_classes: int) -> int:
    """Return SHIP's trainable parameters, head included: M K D + 10 D + 20 D + C (D + 1) (section 6 of the spec)."""
    config = ShipConfig(prompt_length=prompt_length)
    attribute_levels = min(config.attribute_levels, sum(level > 0 for level in levels))
    prompts = len(levels) * prompt_length + config.shared_length + attribute_levels * config.attribute_length
    return prompts * width + num_classes * (width + 1)


def _config(own: Mapping[str, Tensor], num_levels: int) -> ShipConfig:
    lengths = {own[f"compound_prompts_visual.{index}"].shape[1] for index in range(num_levels)}
    if len(lengths) != 1:
        raise InputError(f"the levels of this checkpoint have prompts of different lengths: {sorted(lengths)}")
    attribute = own["attribute_prompt"]
    return ShipConfig(
        prompt_length=lengths.pop(),
        shared_length=own["semantic_share_prompt"].shape[0],
        attribute_length=attribute.shape[1],
        attribute_levels=attribute.shape[0],
    )


def _own_names(own: Mapping[str, Tensor], num_levels: int, model: Ship) -> dict[str, Tensor]:
    named = {f"prompts.independent.{i}": own[f"compound_prompts_visual.{i}"].squeeze(0) for i in range(num_levels)}
    named |= {"prompts.shared": own["semantic_share_prompt"], "head.weight": own["head.weight"]}
    # Where fewer levels exist than attribute prompts, the last rows are those of the levels there are.
    count = len(model.prompts.attribute_blocks)
    if count:
        named["prompts.attribute"] = own["attribute_prompt"][-count:]
    return named | {"head.bias": own["head.bias"]}
