"""The bare backbone: the baseline of every cost measurement."""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.backbones import pooled_features


class BareBackbone(nn.Module):
    """A frozen copy of ``backbone`` as timm runs it, and its gradient with respect to the image tokens.

    Its attention is PyTorch's, also where those of the methods use other kernels (``shipbench.prompting.kernels``):
    it is what a user of timm has without shipbench, and the same in every release.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> BareBackbone:
        """Set the mode of the module; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, D) of normalised images (B, 3, H, W)."""
        return self.backbone(images)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return a scalar; labels are ignored.

        In a ViT, its gradient goes back to the embedded image tokens and no further, in other models to the images.
        """
        vit = self.backbone
        if type(vit) is not VisionTransformer:
            return pooled_features(vit, images.detach().requires_grad_(True)).float().sum()
        with torch.no_grad():
            tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        features = vit.norm(vit.blocks(tokens.requires_grad_(True)))
        return features[:, 0].float().sum()
