"""The model of the cosine probe: a frozen backbone and a trained readout of its features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cosine_probe.method import CosineSettings
from shipbench.prompting import frozen


class Readout(nn.Module):
    """Cosines between features (B, D) and one direction per class, times a scale."""

    def __init__(self, width: int, num_classes: int, settings: CosineSettings) -> None:
        super().__init__()
        self.settings = settings
        self.head = nn.Linear(width, num_classes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        if self.settings.normalise:
            features = F.normalize(features, dim=1)
        return self.settings.scale * F.linear(features, F.normalize(self.head.weight, dim=1))

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, a scalar."""
        return F.cross_entropy(self(features), labels)


class CosineModel(nn.Module):
    """A frozen backbone with a readout of its final CLS token.

    It has ``features`` and ``readout``, so shipbench computes the features once instead of in every epoch.
    """

    def __init__(self, backbone: VisionTransformer, num_classes: int, settings: CosineSettings) -> None:
        super().__init__()
        self.backbone = frozen(backbone)
        self.readout = Readout(backbone.embed_dim, num_classes, settings)

    def train(self, mode: bool = True) -> CosineModel:
        """Set the training mode of the readout; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the final CLS token (B, D) of normalised images (B, 3, H, W)."""
        return self.backbone.forward_head(self.backbone.forward_features(images), pre_logits=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.readout(self.features(images))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, a scalar."""
        return F.cross_entropy(self(images), labels)
