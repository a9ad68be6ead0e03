"""LN tuning: train the norms."""

from __future__ import annotations

from .settings import LnTuningConfig
from .subset import FINAL_NORM, Subset, belongs_to_norm


class LnTuning(Subset):
    """w * (u - mean) / deviation + b in every norm, where w and b alone are trained, or one of them."""

    def __init__(self, config: LnTuningConfig) -> None:
        super().__init__()
        self.config = config

    def trains(self, name: str) -> bool:
        """Return whether ``name`` belongs to a norm and is trained."""
        if not belongs_to_norm(name) or (name.startswith(FINAL_NORM) and not self.config.final_norm):
            return False
        return self.config.biases if name.endswith("bias") else self.config.weights
