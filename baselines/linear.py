"""The linear probe: a trained head on fixed features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shipbench.adapting import backbone_weights, with_head
from shipbench.backbones import feature_width, pooled_features
from shipbench.prompting import frozen, new_head
from shipbench.settings import whole_number


class Readout(nn.Module):
    """A linear classifier on features (B, D); a training step draws no random numbers."""

    draws_on_device, stochastic_depth = False, None

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.head = new_head(width, whole_number("num_classes", num_classes, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.head(features)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, a scalar."""
        return F.cross_entropy(self(features), labels)


class LinearModel(nn.Module):
    """A frozen timm model and a trained readout of its pooled features; images are normalised (B, 3, H, W).

    A training step draws no random numbers. Raises ``InputError`` for fewer than one class.
    """

    draws_on_device, stochastic_depth = False, None

    def __init__(self, backbone: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone = frozen(backbone)
        self.readout = Readout(feature_width(backbone), num_classes)

    def train(self, mode: bool = True) -> LinearModel:
        """Set the training mode of the readout; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features (B, D) from which timm classifies: the final CLS token, or what the model pools."""
        return pooled_features(self.backbone, images)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.readout(self.features(images))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, a scalar."""
        return F.cross_entropy(self(images), labels)

    def merged_state(self) -> dict[str, Tensor]:
        """Return the state of a plain timm model that computes the same.

        Raises ``InputError`` for a model whose classifier is no linear layer.
        """
        return with_head(backbone_weights(self.backbone), self.readout.head, self.backbone)
