"""Full fine-tuning: timm's forward pass with a new head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from shipbench.adapting import backbone_weights, with_head
from shipbench.backbones import feature_width, pooled_features
from shipbench.prompting import new_head
from shipbench.prompting.kernels import attention_of_modules
from shipbench.settings import whole_number


class FullModel(nn.Module):
    """A timm model with a new head, all of whose weights are trained; images are normalised floats (B, 3, H, W).

    timm draws stochastic depth, on the device.
    """

    draws_on_device, stochastic_depth = True, None

    def __init__(self, backbone: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(True)
        self.head = new_head(feature_width(backbone), whole_number("num_classes", num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        with attention_of_modules(self.backbone, images.device):
            return self.head(pooled_features(self.backbone, images))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, a scalar."""
        return F.cross_entropy(self(images), labels)

    def merged_state(self) -> dict[str, Tensor]:
        """Return the state of a plain timm model that computes the same.

        Raises ``InputError`` for a model whose classifier is no linear layer.
        """
        return with_head(backbone_weights(self.backbone), self.head, self.backbone)
