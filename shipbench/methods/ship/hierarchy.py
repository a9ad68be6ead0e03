"""The semantic hierarchy: which consecutive blocks share one set of independent prompts (section 1 of the paper)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def affinity_matrix(features: Tensor) -> Tensor:
    """Return the blocks' affinity (blocks, blocks): the mean over images of the cosine between block features.

    ``features`` (images, blocks, D) holds one feature of every block's output for each image.
    """
    unit = F.normalize(torch.as_tensor(features), dim=-1)
    return torch.einsum("nld,nmd->lm", unit, unit) / unit.shape[0]


def build_hierarchy(affinity: Tensor, threshold: float, end_layer: int | None = None) -> list[int]:
    """Return the first block of every level.

    A level ends before the first later block whose affinity (blocks, blocks) with the level's first block is below
    ``threshold``. At 1.0 and above every block is its own level. ``end_layer`` drops levels that start there or later.
    """
    matrix = torch.as_tensor(affinity)
    depth = matrix.shape[0]
    levels = list(range(depth)) if threshold >= 1.0 else [0]
    if threshold < 1.0:
        for block in range(1, depth):
            if float(matrix[levels[-1], block]) < threshold:
                levels.append(block)
    return [level for level in levels if end_layer is None or level < end_layer]
