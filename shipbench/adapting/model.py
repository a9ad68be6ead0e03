"""A backbone with an adapter and a new head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting.adapter import Adapter
from shipbench.adapting.block import FrozenBlock
from shipbench.adapting.merging import backbone_weights, with_head
from shipbench.adapting.noise import Noise
from shipbench.backbones import feature_width, refuse_another_size, refuse_unadaptable
from shipbench.prompting import add_positions, drop_rates, frozen, new_head
from shipbench.prompting.architectures import rotary_positions
from shipbench.settings import whole_number


class AdaptedModel(nn.Module):
    """A ViT whose blocks pass through the sites of an adapter; images are normalised floats (B, 3, H, W).

    Only the adapter, the head, and the backbone's tensors for which ``adapter.trains`` is true require gradients.
    ``path_rates`` are the rates of stochastic depth by block, by default those with which the backbone was built. In
    training mode, ``masks`` takes an iterator of masks to use in place of random ones (see ``Noise``), which are drawn
    on the device. Raises ``InputError`` for a backbone without the sites of an adapter, and for fewer than one class.
    """

    draws_on_device, stochastic_depth = True, None
    masks: Iterator[Tensor] | None = None

    def __init__(
        self,
        backbone: VisionTransformer,
        num_classes: int,
        adapter: Adapter,
        *,
        path_rates: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        refuse_unadaptable(backbone)
        self.backbone = frozen(backbone)
        self.adapter = adapter
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(not name.startswith("head.") and adapter.trains(name))
        self.head = new_head(feature_width(backbone), whole_number("num_classes", num_classes, 1))
        self.path_rates = tuple(drop_rates(backbone) if path_rates is None else path_rates)

    def train(self, mode: bool = True) -> AdaptedModel:
        """Set the training mode of adapter and head; the backbone stays in evaluation mode, without dropout."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes); dropout and stochastic depth act in training mode only."""
        vit, adapter = self.backbone, self.adapter
        refuse_another_size(vit, images)
        tokens = add_positions(vit, adapter.patches(vit.patch_embed(images)))
        for block in self._blocks():
            tokens = adapter.mlp_residual(block, adapter.attention_residual(block, tokens))
        return self.head(self._features(tokens))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, a scalar."""
        return F.cross_entropy(self(images), labels)

    def learned(self) -> Mapping[str, float | Tensor]:
        """Return the adapter's trained numbers for the record, by name."""
        return self.adapter.learned()

    def merged_state(self) -> dict[str, Tensor]:
        """Return the state of a plain timm model with a classifier that computes the same.

        Raises ``InputError`` if the method cannot be merged into the backbone.
        """
        weights = backbone_weights(self.backbone)
        self.adapter.merge(weights)
        return with_head(weights, self.head, self.backbone)

    def _features(self, tokens: Tensor) -> Tensor:
        """Return what the head reads (B, D) of the last block's tokens (B, N, D)."""
        vit, adapter = self.backbone, self.adapter
        normed = vit.norm(tokens)
        if isinstance(vit.norm, nn.Identity):
            # The final norm comes after pooling.
            return adapter.final_norm(vit.forward_head(normed, pre_logits=True))
        return vit.forward_head(adapter.final_norm(normed), pre_logits=True)

    def _blocks(self) -> Iterator[FrozenBlock]:
        vit, noise = self.backbone, Noise(self.training, self.masks)
        (rows, columns), positions = vit.patch_embed.grid_size, rotary_positions(vit)
        for index, (block, rate) in enumerate(zip(vit.blocks, self.path_rates, strict=True)):
            yield FrozenBlock(index, block, rate, noise, vit.num_prefix_tokens, (rows, columns), positions)
