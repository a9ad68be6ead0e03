"""Random resized crops and horizontal flips, drawn for each image and epoch.

An image's crop depends on the seed, the epoch and the image's index alone. So a resumed run repeats it, and so do a run
in a stack and a batch that is computed in parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shipbench.training.resampling import Step, device_crops, host_crops

# As torchvision's RandomResizedCrop and RandomHorizontalFlip do by default.
_AREA = (0.08, 1.0)
_LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))
_ATTEMPTS = 10
_FLIPPED = 0.5


@dataclass(frozen=True)
class FlipCrop:
    """Cuts inputs of ``side`` pixels from ``count`` squares of ``source`` pixels.

    The area of a crop is 8 to 100 % of the square, its aspect ratio 3/4 to 4/3; it is resized to the input with a
    bicubic filter, and flipped horizontally in half of the cases.
    """

    count: int
    source: int
    side: int

    def draw(self, seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the boxes (count, 4) as (top, left, height, width), and which crops are flipped (count,)."""
        uniform = _uniform(seed, epoch, (self.count, 2 * _ATTEMPTS + 3))
        low, high = _AREA
        area = self.source**2 * (low + (high - low) * uniform[:, :_ATTEMPTS])
        low, high = _LOG_RATIO
        ratio = np.exp(low + (high - low) * uniform[:, _ATTEMPTS : 2 * _ATTEMPTS])
        sizes = np.rint(np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], axis=2)).astype(np.int64)
        fits = ((sizes > 0) & (sizes <= self.source)).all(axis=2)
        chosen = sizes[np.arange(self.count), fits.argmax(axis=1)]
        # If no attempt fits, torchvision takes the largest centred crop, which is the whole of a square.
        chosen = np.where(fits.any(axis=1, keepdims=True), chosen, self.source)
        corners = (uniform[:, -3:-1] * (self.source - chosen + 1)).astype(np.int64)
        return np.concatenate([corners, chosen], axis=1), uniform[:, -1] < _FLIPPED

    def step(self, seed: int, epoch: int, device: torch.device | None) -> Step:
        """Return the step of one epoch: for ``device``, or for the host if that is None."""
        boxes, flips = map(torch.from_numpy, self.draw(seed, epoch))
        if device is None:
            return _Crops(boxes, flips, self.side, on_host=True)
        return _Crops(boxes.to(device), flips.to(device), self.side, on_host=False)


@dataclass(frozen=True)
class _Crops:
    boxes: Tensor
    flips: Tensor
    side: int
    on_host: bool

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        cut = host_crops if self.on_host else device_crops
        return cut(images, self.boxes[indices], self.flips[indices], self.side)


def _uniform(seed: int, epoch: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return numbers in [0, 1), the same in every version of NumPy: it promises that of raw bits only."""
    bits = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(shape[0] * shape[1])
    return np.multiply(bits >> np.uint64(11), 2.0**-53).reshape(shape)
