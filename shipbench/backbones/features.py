"""What every timm model offers, whatever its architecture: the size and normalisation of its images, its features."""

from __future__ import annotations

from typing import Any

from timm.layers import PatchEmbed
from torch import Tensor

from shipbench.backbones.origin import Triple
from shipbench.errors import InputError


def input_size_of(model: Any) -> tuple[int, int]:
    """Return height and width in pixels of the images of a model from timm or ``load_backbone``."""
    loaded = getattr(model, "shipbench_preprocessing", None)
    if loaded is not None:
        return (loaded.image_size, loaded.image_size)
    patches = getattr(model, "patch_embed", None)
    size = getattr(patches, "img_size", None) or model.pretrained_cfg["input_size"][1:]
    return int(size[0]), int(size[1])


def refuse_another_size(model: Any, images: Tensor) -> None:
    """Raise ``InputError`` for ``images`` (B, 3, H, W) of a size that a timm model with patches does not take."""
    patches = getattr(model, "patch_embed", None)
    if not isinstance(patches, PatchEmbed) or not patches.strict_img_size or patches.img_size is None:
        return
    (height, width), (rows, columns) = images.shape[-2:], patches.img_size
    if (height, width) != (rows, columns):
        raise InputError(f"the images have {height} x {width} pixels, but the backbone takes {rows} x {columns}")


def normalisation_of(model: Any) -> tuple[Triple, Triple]:
    """Return the mean and the deviation with which timm normalises the images of a model."""
    config = model.pretrained_cfg
    return tuple(config["mean"]), tuple(config["std"])


def patch_grid_side(model: Any) -> int:
    """Return the side of the grid of patches, 0 for an architecture without one."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    return int(grid[0]) if grid else 0


def feature_width(model: Any) -> int:
    """Return the width D of the features from which a timm model classifies."""
    return int(model.head_hidden_size)


def pooled_features(model: Any, images: Tensor) -> Tensor:
    """Return the features (B, D) from which a timm model classifies normalised images (B, 3, H, W)."""
    refuse_another_size(model, images)
    return model.forward_head(model.forward_features(images), pre_logits=True)
