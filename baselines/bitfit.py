"""BitFit (Ben Zaken et al., ACL 2022, arXiv 2106.10199): train the biases."""

from __future__ import annotations

from .subset import Subset


class BitFit(Subset):
    """W u + b in every layer, where b alone is trained: patch projection, norms, qkv, proj, fc1 and fc2."""

    def trains(self, name: str) -> bool:
        """Return whether ``name`` is a bias."""
        return "bias" in name
