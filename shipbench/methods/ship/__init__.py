"""SHIP: semantic hierarchical prompt tuning (Zhu et al., ICASSP 2025, arXiv 2412.16956).

docs/explanation/method.md states what is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shipbench.methods.ship.config import ShipConfig
from shipbench.runtime.lazy import names_from

if TYPE_CHECKING:
    from shipbench.methods.ship.attributes import attribute_prototypes
    from shipbench.methods.ship.hierarchy import affinity_matrix, build_hierarchy
    from shipbench.methods.ship.model import Ship
    from shipbench.methods.ship.official import load_official_checkpoint

__all__ = [
    "Ship",
    "ShipConfig",
    "affinity_matrix",
    "attribute_prototypes",
    "build_hierarchy",
    "load_official_checkpoint",
]

# Lazy, so that listing methods does not import torch.
__getattr__ = names_from(
    __name__,
    {
        "Ship": "model",
        "affinity_matrix": "hierarchy",
        "attribute_prototypes": "attributes",
        "build_hierarchy": "hierarchy",
        "load_official_checkpoint": "official",
    },
)
