"""Pretrained ViTs, with the preprocessing and the hash that belong to their weights."""

from shipbench.backbones.loading import (
    DEMO_BACKBONE,
    Preprocessing,
    load_backbone,
    preprocessing_of,
    sha256_of,
)
from shipbench.backbones.state import build_vit, fuse_qkv, read_state_dict

__all__ = [
    "DEMO_BACKBONE",
    "Preprocessing",
    "build_vit",
    "fuse_qkv",
    "load_backbone",
    "preprocessing_of",
    "read_state_dict",
    "sha256_of",
]
