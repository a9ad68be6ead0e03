"""What is known of a backbone before it is loaded: a plan needs no more, and torch and timm take seconds to import."""

from __future__ import annotations

from pathlib import Path

from shipbench.errors import InputError

DEMO_BACKBONE = "demo-vit-small-patch14"
DEMO_SHA256 = "e830c8856ae33cda9ae789b6b0029306c69d7398eb214b0018fb245010da9780"
"""``sha256_of`` the demo backbone, which is checked whenever its file is read."""
MAX_IMAGE_SIZE = 4096
_DEMO_PATCH = 14


def pinned_sha256(name: str, checkpoint: str | Path | None, image_size: int | None) -> str | None:
    """Return the hash that a backbone's weights must have, or None if only loading tells.

    Raises ``InputError`` for an image size that does not fit, as ``load_backbone`` does.
    """
    if name != DEMO_BACKBONE or checkpoint is not None:
        return None
    if image_size:
        check_image_size(image_size, _DEMO_PATCH, name)
    return DEMO_SHA256


def check_image_size(image_size: int, patch: int, name: str) -> None:
    """Raise ``InputError`` for an image size that is no multiple of a backbone's patch size, or beyond all reason."""
    if image_size > MAX_IMAGE_SIZE:
        raise InputError(f"image_size={image_size} is more than {MAX_IMAGE_SIZE} pixels, the most that a run may use")
    if image_size < patch or image_size % patch:
        nearest = max(patch, round(image_size / patch) * patch)
        raise InputError(f"image_size={image_size} is not a multiple of {name}'s patch size {patch}; try {nearest}")
