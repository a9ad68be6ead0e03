"""Image sizes and FLOPs of plain ViTs by name, so that the cost of a plan is known without torch."""

from __future__ import annotations

import re

from shipbench.spec import RunSpec

# Width and number of blocks.
_SIZES = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}
_NAME = re.compile(r"(?:demo-)?vit[_-](tiny|small|base|large)[_-]patch(\d+)(?:_(\d+))?(?:\..*)?")
_MLP_RATIO = 4


def planned_image_size(spec: RunSpec) -> int | None:
    """Return the image size of a spec's run in pixels; None if neither its recipe nor the backbone's name has it."""
    match = _NAME.fullmatch(spec.resolved.backbone)
    return spec.resolved.recipe.image_size or (int(match[3]) if match and match[3] else None)


def plain_vit_flops(spec: RunSpec) -> float | None:
    """Return the FLOPs of one forward pass of a spec's backbone, per image; None if the name does not give its shape.

    These are matrix products and attention, 2 per multiply-add, of a ViT with a class token and without a head.
    """
    match, size = _NAME.fullmatch(spec.resolved.backbone), planned_image_size(spec)
    if not match or not size:
        return None
    width, blocks = _SIZES[match[1]]
    patch = int(match[2])
    patches = (size // patch) ** 2
    tokens = patches + 1
    products = (4 + 2 * _MLP_RATIO) * tokens * width**2
    attention = 2 * tokens**2 * width
    embedding = patches * 3 * patch**2 * width
    return 2.0 * (blocks * (products + attention) + embedding)
