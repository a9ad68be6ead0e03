"""Checkpoints in the naming of the official SHIP repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shipbench.backbones.layouts import TIMM
from shipbench.backbones.state_dicts import (
    build_vit,
    fuse_qkv,
    read_state_dict,
    refuse_shapes,
    require_dimensions,
    require_finite,
    where_of,
)
from shipbench.errors import InputError
from shipbench.methods.ship.config import ShipConfig
from shipbench.methods.ship.model import Ship

# The official code creates, trains and counts this position embedding, but its forward pass never reads it.
_UNUSED = "visual_prompt_token_pos_embed"
_WHAT = "an official SHIP checkpoint"
_DIMENSIONS = {"semantic_share_prompt": 2, "attribute_prompt": 3, "head.weight": 2, "head.bias": 1}


def load_official_checkpoint(
    state_dict: Mapping[str, Tensor] | str | Path,
    *,
    levels: Sequence[int],
    prototypes: Tensor | NDArray[np.floating],
    num_heads: int,
    image_size: int = 224,
    patch_size: int = 16,
) -> Ship:
    """Return a ``Ship`` in evaluation mode with the weights of an official checkpoint (a state dict or its file).

    ``levels`` are the first blocks of the levels; ``prototypes`` (C, D) is the attribute bank, which official
    checkpoints do not contain. Stochastic depth is 0. The file may hold more than the model, as the one that training
    writes does. Raises ``InputError`` that names every missing or unexpected key, a tensor of another shape, or one
    with values that are NaN or infinite.
    """
    where = where_of(state_dict)
    state = read_state_dict(state_dict, [TIMM])
    levels = [int(level) for level in levels]
    dimensions = {f"compound_prompts_visual.{index}": 3 for index in range(len(levels))} | _DIMENSIONS
    missing = [key for key in dimensions if key not in state]
    trained = {key: state.pop(key) for key in dimensions if key in state}
    state.pop(_UNUSED, None)
    require_dimensions(trained, dimensions, _WHAT, where)
    fused, unfused = fuse_qkv(state, "blocks.{index}.attn.{part}.{kind}", ("q", "k", "v"))
    backbone = build_vit(fused, num_heads, image_size, patch_size, _WHAT, where, also_missing=missing + unfused)
    bank = torch.as_tensor(prototypes)
    require_finite({"prototypes": bank}, "")
    model = Ship(backbone, len(trained["head.bias"]), levels, bank, _config(trained, len(levels)))
    renamed, expected = _renamed(trained, len(levels), model), model.state_dict()
    refuse_shapes(_WHAT, renamed, expected)
    model.load_state_dict(renamed, strict=False)
    return model.eval()


def _config(trained: Mapping[str, Tensor], num_levels: int) -> ShipConfig:
    lengths = {trained[f"compound_prompts_visual.{index}"].shape[1] for index in range(num_levels)}
    if len(lengths) != 1:
        raise InputError(
            f"the levels of this checkpoint have prompts of unequal lengths {sorted(lengths)}; use another"
        )
    attribute = trained["attribute_prompt"]
    return ShipConfig(
        prompt_length=lengths.pop(),
        shared_length=trained["semantic_share_prompt"].shape[0],
        attribute_length=attribute.shape[1],
        attribute_levels=attribute.shape[0],
    )


def _renamed(trained: Mapping[str, Tensor], num_levels: int, model: Ship) -> dict[str, Tensor]:
    """Return trained tensors under the names of ``model``."""
    named = {f"prompts.independent.{i}": trained[f"compound_prompts_visual.{i}"].squeeze(0) for i in range(num_levels)}
    named |= {"prompts.shared": trained["semantic_share_prompt"], "head.weight": trained["head.weight"]}
    # With fewer levels than attribute prompts, the last rows belong to the existing levels.
    count = len(model.prompts.attribute_blocks)
    if count:
        named["prompts.attribute"] = trained["attribute_prompt"][-count:]
    return named | {"head.bias": trained["head.bias"]}
