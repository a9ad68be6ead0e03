"""The semantic hierarchy: which consecutive blocks share one set of independent prompts (section 1 of the paper)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def affinity_matrix(features: Tensor) -> Tensor:
    """Return the affinity (blocks, blocks) of blocks: the cosine between their features, averaged over images.

    ``features`` (images, blocks, D) holds one feature of the output of every block for each image.
    """
    unit = F.normalize(torch.as_tensor(features), dim=-1)
    return torch.einsum("nld,nmd->lm", unit, unit) / unit.shape[0]


def build_hierarchy(affinity: Tensor, threshold: float, end_layer: int | None = None) -> list[int]:
    """Return the first block of every level.

    A level ends before the first block whose affinity with the first block of the level is below ``threshold``;
    ``affinity`` is (blocks, blocks). At a threshold of 1.0 and above, every block is a level. Levels that start at
    block ``end_layer`` or later are dropped.
    """
    matrix = torch.as_tensor(affinity)
    depth = matrix.shape[0]
    levels = list(range(depth)) if threshold >= 1.0 else [0]
    if threshold < 1.0:
        for block in range(1, depth):
            if float(matrix[levels[-1], block]) < threshold:
                levels.append(block)
    return [level for level in levels if end_layer is None or level < end_layer]
