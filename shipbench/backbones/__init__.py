"""Pretrained ViTs, with the preprocessing and the hash that belong to their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shipbench.backbones.identity import DEMO_BACKBONE, pinned_sha256

if TYPE_CHECKING:
    from shipbench.backbones.loading import Preprocessing, load_backbone, preprocessing_of, sha256_of
    from shipbench.backbones.state import build_vit, fuse_qkv, read_state_dict

__all__ = [
    "DEMO_BACKBONE",
    "Preprocessing",
    "build_vit",
    "fuse_qkv",
    "load_backbone",
    "pinned_sha256",
    "preprocessing_of",
    "read_state_dict",
    "sha256_of",
]

_HOMES = {
    "Preprocessing": "loading",
    "build_vit": "state",
    "fuse_qkv": "state",
    "load_backbone": "loading",
    "preprocessing_of": "loading",
    "read_state_dict": "state",
    "sha256_of": "loading",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch and timm when it is first used, so that a plan with nothing left to do is made fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shipbench.backbones' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"shipbench.backbones.{_HOMES[name]}"), name)
