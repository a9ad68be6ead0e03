"""LN tuning: train the norms."""

from __future__ import annotations

from .subset import Subset, belongs_to_norm


class LnTuning(Subset):
    """w * (u - mean) / deviation + b in every norm, where w and b alone are trained."""

    def trains(self, name: str) -> bool:
        """Return whether ``name`` belongs to a norm."""
        return belongs_to_norm(name)
