"""A frozen ViT of timm (``VisionTransformer``, ``Eva``) with small trained modules at its sites.

A method is an ``Adapter``: it overrides the sites that it changes, and every other site computes what timm computes.
"""

from shipbench.adapting.adapter import Adapter, PerBlock, per_block
from shipbench.adapting.block import FrozenBlock
from shipbench.adapting.merging import add_to_bias, add_to_weight, backbone_weights, scale_rows, weight_of, with_head
from shipbench.adapting.mlps import hidden_width
from shipbench.adapting.model import AdaptedModel
from shipbench.adapting.noise import Noise

__all__ = [
    "AdaptedModel",
    "Adapter",
    "FrozenBlock",
    "Noise",
    "PerBlock",
    "add_to_bias",
    "add_to_weight",
    "backbone_weights",
    "hidden_width",
    "per_block",
    "scale_rows",
    "weight_of",
    "with_head",
]
