"""The backbone alone: what every cost is compared with."""

from __future__ import annotations

import copy

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.prompting import frozen


class BareBackbone(nn.Module):
    """The yardstick: the frozen backbone as timm runs it, and its gradient with respect to the image tokens."""

    def __init__(self, backbone: VisionTransformer) -> None:
        super().__init__()
        self.backbone = frozen(copy.deepcopy(backbone))

    def train(self, mode: bool = True) -> BareBackbone:
        """Leave the backbone in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return what timm returns."""
        return self.backbone(images)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return a scalar whose gradient goes back to the image tokens and no further."""
        vit = self.backbone
        with torch.no_grad():
            tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        features = vit.norm(vit.blocks(tokens.requires_grad_(True)))
        return features[:, 0].float().sum()
