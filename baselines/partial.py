"""Partial fine-tuning: train the last blocks."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from shipbench.errors import InputError

from .settings import PartialConfig
from .subset import FINAL_NORM, Subset


class Partial(Subset):
    """The last blocks are trained, and the final norm unless ``config`` leaves it out; the rest is frozen.

    Raises ``InputError`` for more blocks than the backbone has.
    """

    def __init__(self, backbone: VisionTransformer, config: PartialConfig) -> None:
        super().__init__()
        depth = len(backbone.blocks)
        if reason := config.too_many(depth):
            raise InputError(reason)
        final_norm = FINAL_NORM if config.final_norm else ()
        self.trained = (*final_norm, *(f"blocks.{depth - 1 - last}." for last in range(config.blocks)))

    def trains(self, name: str) -> bool:
        """Return whether ``name`` belongs to one of the last blocks or to the final norm."""
        return name.startswith(self.trained)
