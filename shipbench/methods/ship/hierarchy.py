"""The semantic hierarchy: which consecutive blocks share one set of independent prompts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from shipbench.errors import InputError
from shipbench.methods.ship.config import ShipConfig
from shipbench.methods.ship.features import CHUNK, finite_features

# The features of up to this number of images are summed at once: another order of adding rounds differently, which may
# move a level.
_SUMMED_AT_ONCE = 65_536


def affinity_matrix(features: Tensor) -> Tensor:
    """Return the affinity (blocks, blocks) of blocks: the cosine between their features, averaged over images.

    ``features`` (images, blocks, D) holds one feature of the output of every block for each image. Raises
    ``InputError`` for another shape, for no images or blocks, and for numbers that are not finite.
    """
    features = finite_features(features, "(images, blocks, D)")
    sums = [torch.einsum("nld,nmd->lm", unit, unit) for unit in _unit_features(features)]
    total = sums[0] if len(sums) == 1 else torch.stack(sums).double().sum(dim=0)
    return (total / len(features)).to(features.dtype)


def affinity_deviation(features: Tensor) -> Tensor:
    """Return the standard deviation (blocks, blocks) over images of the cosines that ``affinity_matrix`` averages.

    ``features`` is (images, blocks, D) with at least two images; raises ``InputError`` as ``affinity_matrix`` does.
    """
    features = finite_features(features, "(images, blocks, D)")
    cosines = torch.cat([unit @ unit.transpose(1, 2) for unit in _unit_features(features)])
    return cosines.std(dim=0, correction=1)


def _unit_features(features: Tensor) -> Iterator[Tensor]:
    """Yield ``features`` scaled to length 1: all of them, or chunk by chunk if there are many images."""
    for chunk in features.split(len(features) if len(features) <= _SUMMED_AT_ONCE else CHUNK):
        yield F.normalize(chunk, dim=-1)


def build_hierarchy(affinity: Tensor, threshold: float, end_layer: int | None = None) -> list[int]:
    """Return the first block of every level.

    A level ends before the first block whose affinity with the first block of the level is below ``threshold``;
    ``affinity`` is (blocks, blocks). At a threshold of 1.0 and above, every block is a level. Levels that start at
    block ``end_layer`` or later are dropped. Raises ``InputError`` for an affinity that is not a square matrix of
    finite numbers, and for a threshold or end layer that ``ShipConfig`` refuses.
    """
    config = ShipConfig(threshold=threshold, end_layer=end_layer)
    matrix = torch.as_tensor(affinity)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise InputError(f"the affinity is {tuple(matrix.shape)}; it must be a square matrix of (blocks, blocks)")
    if not matrix.isfinite().all():
        raise InputError("the affinity has values that are not finite; compute it from finite features")
    levels = _levels(matrix, config.threshold)
    return [level for level in levels if config.end_layer is None or level < config.end_layer]


def _levels(affinity: Tensor, threshold: float) -> list[int]:
    depth = len(affinity)
    if threshold >= 1.0:
        return list(range(depth))
    levels = [0]
    for block in range(1, depth):
        if float(affinity[levels[-1], block]) < threshold:
            levels.append(block)
    return levels
