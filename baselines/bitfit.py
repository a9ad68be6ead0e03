"""BitFit (Ben Zaken et al., ACL 2022, arXiv 2106.10199): train the biases."""

from __future__ import annotations

from .settings import BitFitConfig
from .subset import Subset, belongs_to_norm


class BitFit(Subset):
    """W u + b in every layer, where b alone is trained: patch projection, norms, qkv, proj, fc1 and fc2."""

    def __init__(self, config: BitFitConfig) -> None:
        super().__init__()
        self.config = config

    def trains(self, name: str) -> bool:
        """Return whether ``name`` is a bias of a part that is trained."""
        return "bias" in name and self._is_included(name)

    def _is_included(self, name: str) -> bool:
        if belongs_to_norm(name):
            return self.config.at_norms
        if ".mlp." in name:
            return self.config.at_mlp
        # Attention also pools the tokens of some backbones.
        return self.config.at_patches if name.startswith("patch_embed.") else self.config.at_attention
