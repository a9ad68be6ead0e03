"""Pretrained ViTs, with the preprocessing and the hash of their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shipbench.backbones.origin import Origin
from shipbench.backbones.pinned import DEMO_BACKBONE, pinned_sha256
from shipbench.runtime.lazy import names_from

if TYPE_CHECKING:
    from shipbench.backbones.loading import (
        Preprocessing,
        load_backbone,
        origin_of,
        preprocessing_of,
        refuse_unpromptable,
        sha256_of,
    )
    from shipbench.backbones.state_dicts import build_vit, fuse_qkv, read_state_dict

__all__ = [
    "DEMO_BACKBONE",
    "Origin",
    "Preprocessing",
    "build_vit",
    "fuse_qkv",
    "load_backbone",
    "origin_of",
    "pinned_sha256",
    "preprocessing_of",
    "read_state_dict",
    "refuse_unpromptable",
    "sha256_of",
]

# Lazy, because a plan whose runs are all done needs neither torch nor timm.
__getattr__ = names_from(
    __name__,
    {
        "Preprocessing": "loading",
        "build_vit": "state_dicts",
        "fuse_qkv": "state_dicts",
        "load_backbone": "loading",
        "origin_of": "loading",
        "preprocessing_of": "loading",
        "read_state_dict": "state_dicts",
        "refuse_unpromptable": "loading",
        "sha256_of": "loading",
    },
)
