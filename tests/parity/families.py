"""Tiny random members of the families of ViTs, built by the names of timm's pretrained models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor

from tests.reference.tiny import random_like, uniform

WIDTH, DEPTH, HEADS, CLASSES = 32, 4, 2, 5


@dataclass(frozen=True)
class Family:
    """The timm name of a member, the patches of a tiny image, and what else its architecture is built with."""

    name: str
    patch: int = 16
    changes: dict[str, Any] = field(default_factory=dict)
    class_token: bool = True

    @property
    def image_size(self) -> int:
        """The side of the image in pixels, of three patches."""
        return 3 * self.patch


FAMILIES = {
    "AugReg": Family("vit_tiny_patch16_224.augreg_in21k"),
    "DINO": Family("vit_small_patch16_224.dino"),
    "DINOv2 with registers": Family("vit_small_patch14_reg4_dinov2.lvd142m", 14),
    "DINOv2 with gated MLP": Family("vit_giant_patch14_dinov2.lvd142m", 14),
    "CLIP": Family("vit_base_patch16_clip_224.openai"),
    "MAE, pooled": Family("vit_base_patch16_224.mae", changes={"global_pool": "avg"}),
    "SigLIP": Family("vit_base_patch16_siglip_224.webli", class_token=False),
    "average pooling without class token": Family("vit_base_patch16_gap_224", class_token=False),
    "AIMv2": Family("aimv2_large_patch14_224.apple_pt", 14, class_token=False),
    "DINOv3": Family("vit_small_patch16_dinov3.lvd1689m"),
    "DINOv3 with gated MLP": Family("vit_small_plus_patch16_dinov3.lvd1689m"),
    "EVA-02": Family("eva02_tiny_patch14_224.mim_in22k", 14),
    "EVA-02 CLIP": Family("eva02_base_patch16_clip_224.merged2b"),
    "ViT with axial rotary positions": Family("vit_small_patch16_rope_224.naver_in1k"),
    "PE": Family("vit_pe_core_tiny_patch16_384.fb"),
}


def tiny(family: Family, seed: int = 0, **changes: Any) -> Any:
    """A headless member in float64 with all parameters random."""
    sizes = {"img_size": family.image_size, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    model = timm.create_model(family.name, pretrained=False, num_classes=0, **{**sizes, **family.changes, **changes})
    model = model.double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.copy_(random_like(name, parameter, generator))
    return model


def batch(family: Family, count: int = 3) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and labels (B,)."""
    generator = torch.Generator().manual_seed(1)
    images = uniform(generator, count, 3, family.image_size, family.image_size)
    return images, torch.randint(CLASSES, (count,), generator=generator)
