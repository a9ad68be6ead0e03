"""Model inputs of one split: images, normalised on the device, or precomputed features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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

    def read(self, indices: Tensor) -> Callable[[], Tensor]:
        """Do the slow part of ``batch`` in any thread; the returned function completes it in the computing thread."""
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
        return self.read(indices)()

    def read(self, indices: Tensor) -> Callable[[], Tensor]:
        """Gather images and start their copy; the returned function waits for it and normalises on the device."""
        if self.images.device.type != "cpu":
            return lambda: self._normalised(self.images[indices.to(self.images.device, non_blocking=True)])
        arrive = _send(_gather(self.images, indices, pinned=self.mean.is_cuda), self.mean.device)
        return lambda: self._normalised(arrive())

    def _normalised(self, chosen: Tensor) -> Tensor:
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
        return self.features[indices.to(self.features.device, non_blocking=True)]

    def read(self, indices: Tensor) -> Callable[[], Tensor]:
        """Return a function that indexes the features; they are on the device already."""
        return lambda: self.batch(indices)


def _gather(images: Tensor, indices: Tensor, *, pinned: bool) -> Tensor:
    """Return a copy of the images at ``indices``, in pinned memory if a GPU will fetch them from there."""
    chosen = torch.empty((len(indices), *images.shape[1:]), dtype=images.dtype, pin_memory=pinned)
    # NumPy copies in this thread alone and releases the interpreter's lock; torch would start more threads.
    # mode="clip" because "raise" would copy twice.
    np.take(images.numpy(), indices.numpy(), axis=0, out=chosen.numpy(), mode="clip")
    return chosen


def _send(images: Tensor, device: torch.device) -> Callable[[], Tensor]:
    """Start to copy pinned ``images`` to a GPU; the returned function makes the GPU, not the caller, wait for them."""
    if device.type != "cuda":
        return lambda: images.to(device, non_blocking=True)
    aside = _copy_stream(device)
    with torch.cuda.stream(aside):
        sent = images.to(device, non_blocking=True)
    arrived = aside.record_event()

    def arrive() -> Tensor:
        computing = torch.cuda.current_stream(device)
        computing.wait_event(arrived)
        # The copy stream owns the memory and must not reuse it while the computing stream still reads it.
        sent.record_stream(computing)
        return sent

    return arrive


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for copies to a GPU; each further stream would hold on to freed memory of its own."""
    return torch.cuda.Stream(device)


def image_inputs(split: Split, preprocessing: Preprocessing, device: torch.device, *, resident: bool) -> ImageInputs:
    """Wrap a split; ``resident`` copies all images to the device now, otherwise they stream from the memory map."""
    images = torch.from_numpy(np.array(split.images)) if resident else _map(split)
    shape = (1, 3, 1, 1)
    mean = torch.tensor(preprocessing.mean, device=device).view(shape)
    std = torch.tensor(preprocessing.std, device=device).view(shape)
    labels = torch.from_numpy(np.array(split.labels)).to(device)
    return ImageInputs(images.to(device) if resident else images, labels, mean, std)


def _map(split: Split) -> Tensor:
    with warnings.catch_warnings():
        # The memory map is read-only, which torch warns about; nothing writes to it.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(split.images)
