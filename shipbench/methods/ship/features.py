"""Checks of the features from which hierarchy and attribute bank are computed."""

from __future__ import annotations

import torch
from torch import Tensor

from shipbench.errors import InputError

CHUNK = 4096
"""Number of images per step where a copy of the features of all images may not fit into memory."""


def finite_features(features: Tensor, axes: str) -> Tensor:
    """Return ``features`` as a floating-point tensor; ``axes`` is its expected shape, as in "(images, D)".

    Raises ``InputError`` for another number of axes, an empty axis, or numbers that are not finite.
    """
    tensor = torch.as_tensor(features)
    if tensor.ndim != axes.count(",") + 1 or not tensor.numel():
        raise InputError(f"the features are {tuple(tensor.shape)}; they must be {axes}, with at least one of each")
    wrong = sum(int((~chunk.isfinite()).flatten(1).any(dim=1).sum()) for chunk in tensor.split(CHUNK))
    if wrong:
        raise InputError(
            f"the features of {wrong} of {len(tensor)} images are not finite; "
            "check the backbone's weights, or use --precision fp32"
        )
    return tensor if tensor.is_floating_point() else tensor.float()
