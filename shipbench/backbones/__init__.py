"""Pretrained ViTs, with the preprocessing and the hash of their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shipbench.backbones.origin import Origin
from shipbench.backbones.pinned import DEMO_BACKBONE, RANDOM, pinned_origin
from shipbench.runtime.lazy import names_from

if TYPE_CHECKING:
    from shipbench.backbones.architecture import (
        classifiers_of,
        has_stochastic_depth,
        refuse_unadaptable,
        refuse_unpromptable,
        repeated_layers,
    )
    from shipbench.backbones.features import feature_width, input_size_of, pooled_features, refuse_another_size
    from shipbench.backbones.loading import (
        Preprocessing,
        load_backbone,
        origin_of,
        preprocessing_of,
        sha256_of,
    )
    from shipbench.backbones.state_dicts import build_vit, fuse_qkv, read_state_dict, require_finite

__all__ = [
    "DEMO_BACKBONE",
    "RANDOM",
    "Origin",
    "Preprocessing",
    "build_vit",
    "classifiers_of",
    "feature_width",
    "fuse_qkv",
    "has_stochastic_depth",
    "input_size_of",
    "load_backbone",
    "origin_of",
    "pinned_origin",
    "pooled_features",
    "preprocessing_of",
    "read_state_dict",
    "refuse_another_size",
    "refuse_unadaptable",
    "refuse_unpromptable",
    "repeated_layers",
    "require_finite",
    "sha256_of",
]

# Lazy, because a plan whose runs are all done needs neither torch nor timm.
__getattr__ = names_from(
    __name__,
    {
        "Preprocessing": "loading",
        "build_vit": "state_dicts",
        "classifiers_of": "architecture",
        "feature_width": "features",
        "fuse_qkv": "state_dicts",
        "has_stochastic_depth": "architecture",
        "input_size_of": "features",
        "load_backbone": "loading",
        "origin_of": "loading",
        "pooled_features": "features",
        "preprocessing_of": "loading",
        "read_state_dict": "state_dicts",
        "refuse_another_size": "features",
        "refuse_unadaptable": "architecture",
        "refuse_unpromptable": "architecture",
        "repeated_layers": "architecture",
        "require_finite": "state_dicts",
        "sha256_of": "loading",
    },
)
