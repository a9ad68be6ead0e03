"""Families of pretrained ViTs, and the normalisation of the images that each was trained on."""

from __future__ import annotations

from dataclasses import dataclass

from shipbench.backbones.origin import Triple


@dataclass(frozen=True)
class Family:
    """A family of pretrained models, and the mean and deviation of the images that it was trained on.

    ``marks`` are parts of timm's names of models with the family's layout, some of which were trained on images of
    another mean.
    """

    name: str
    mean: Triple
    std: Triple
    marks: tuple[str, ...] = ()


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAE = Family("MAE", *_IMAGENET)
DINO = Family("DINO", *_IMAGENET, marks=("dino",))
DINOV2 = Family("DINOv2", *_IMAGENET, marks=("dino", "tips"))
MOCO = Family("MoCo", *_IMAGENET)
SINE_COSINE = Family("MAE or MoCo v3", *_IMAGENET)
CLIP = Family(
    "CLIP",
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
    marks=("clip", "siglip", "mci", "pe_core"),
)
GOOGLE = Family("Google's ViT", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
