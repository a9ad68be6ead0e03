"""Batches of one split, ready for a model: images normalised on the device, or features that are there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from shipbench.backbones import Preprocessing
from shipbench.data.types import Split


class Inputs(Protocol):
    """A split as a model reads it."""

    @property
    def labels(self) -> Tensor:
        """Labels (n,), long, on the device."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def batch(self, indices: Tensor) -> Tensor:
        """Return the inputs at ``indices`` (CPU, long), on the device."""
        ...


@dataclass(frozen=True)
class ImageInputs:
    """Images as uint8 (n, size, size, 3), resident on the device or streamed to it; labels (n,) on the device."""

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def batch(self, indices: Tensor) -> Tensor:
        """Return normalised images (B, 3, H, W) on the device."""
        chosen = self.images[indices.to(self.images.device)].to(self.mean.device, non_blocking=True)
        return (chosen.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std


@dataclass(frozen=True)
class FeatureInputs:
    """Features (n, D) and labels (n,) on the device."""

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def batch(self, indices: Tensor) -> Tensor:
        """Return features (B, D)."""
        return self.features[indices.to(self.features.device)]


def image_inputs(split: Split, preprocessing: Preprocessing, device: torch.device, *, resident: bool) -> ImageInputs:
    """Wrap a split; ``resident`` copies all of its images to the device once, otherwise they stream from the map."""
    # The memory map is read-only and is never written to, which torch warns about.
    images = torch.from_numpy(np.array(split.images)) if resident else _map(split)
    shape = (1, 3, 1, 1)
    mean = torch.tensor(preprocessing.mean, device=device).view(shape)
    std = torch.tensor(preprocessing.std, device=device).view(shape)
    labels = torch.from_numpy(np.array(split.labels)).to(device)
    return ImageInputs(images.to(device) if resident else images, labels, mean, std)


def _map(split: Split) -> Tensor:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(split.images)
