"""Full fine-tuning: timm's forward pass with a new head."""

from __future__ import annotations

import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import backbone_weights, with_head
from shipbench.prompting import drop_rates, new_head
from shipbench.settings import whole_number


class FullModel(nn.Module):
    """A backbone with a new head, all of whose weights are trained; images are normalised floats (B, 3, H, W)."""

    stochastic_depth = None

    def __init__(self, backbone: VisionTransformer, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(True)
        self.head = new_head(backbone.embed_dim, whole_number("num_classes", num_classes, 1))

    @property
    def static_step(self) -> bool:
        """Whether a training step draws no random numbers: timm draws stochastic depth on the device."""
        return not any(drop_rates(self.backbone))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        features = self.backbone.forward_features(images)
        return self.head(self.backbone.forward_head(features, pre_logits=True))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, a scalar."""
        return F.cross_entropy(self(images), labels)

    def merged_state(self) -> dict[str, Tensor]:
        """Return the state of a plain timm model that computes the same."""
        return with_head(backbone_weights(self.backbone), self.head)
