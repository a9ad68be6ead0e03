"""Facts about backbones that planning needs before loading one, without the seconds of importing torch and timm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shipbench.backbones.origin import Origin
from shipbench.errors import InputError

RANDOM = "random"
"""The checkpoint of a backbone with a seeded random initialisation, in specs and in records."""
DEMO_BACKBONE = "demo-vit-small-patch14"
DEMO_SHA256 = "e830c8856ae33cda9ae789b6b0029306c69d7398eb214b0018fb245010da9780"
"""``sha256_of`` the demo backbone; its file is checked against it on every read."""
MAX_IMAGE_SIZE = 4096
_DEMO_PATCH = 14
_DEMO_ORIGIN = Origin(
    DEMO_BACKBONE,
    DEMO_SHA256,
    grid=37,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    blocks=12,
    image_size=37 * _DEMO_PATCH,
)


def pinned_origin(name: str, checkpoint: str | Path | None, image_size: int | None) -> Origin | None:
    """Return the origin of a backbone's weights if it is pinned, or None if the backbone must be loaded to know it.

    Raises ``InputError`` for an image size that ``load_backbone`` would refuse.
    """
    if name != DEMO_BACKBONE or checkpoint is not None:
        return None
    if image_size:
        check_image_size(image_size, _DEMO_PATCH, name)
    return replace(_DEMO_ORIGIN, image_size=image_size or _DEMO_ORIGIN.image_size)


def check_image_size(image_size: int, patch: int, name: str) -> None:
    """Raise ``InputError`` unless the image size is a multiple of ``patch`` and at most ``MAX_IMAGE_SIZE``."""
    if image_size > MAX_IMAGE_SIZE:
        raise InputError(f"image_size={image_size} is more than {MAX_IMAGE_SIZE} pixels, the largest allowed size")
    if image_size < patch or image_size % patch:
        nearest = max(patch, round(image_size / patch) * patch)
        raise InputError(f"image_size={image_size} is not a multiple of {name}'s patch size {patch}; try {nearest}")


def no_stochastic_depth(name: str, rate: float) -> str:
    """Return the refusal of a rate of stochastic depth in an architecture without any."""
    return f"backbone {name!r} has no stochastic depth, but drop_path is {rate:g}; add --set drop_path=0"


def check_checkpoint(checkpoint: str | None) -> None:
    """Raise ``InputError`` for a checkpoint that is neither a file nor random; None stands for the hub's weights."""
    if checkpoint is not None and checkpoint != RANDOM:
        require_checkpoint(Path(checkpoint))


def require_checkpoint(path: Path) -> None:
    """Raise ``InputError`` unless ``path`` is a file."""
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist or is not a file; name a file of weights")
