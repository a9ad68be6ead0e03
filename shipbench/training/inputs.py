"""Model inputs of one split: images, normalised on the device, or precomputed features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shipbench.backbones import Preprocessing
from shipbench.data.framing import Framing
from shipbench.data.types import Split
from shipbench.hardware.memory import free_memory
from shipbench.hardware.streams import side_streams
from shipbench.tasks.catalogue import Augment
from shipbench.training.augmentation import FlipCrop
from shipbench.training.resampling import HostFraming, Step, device_framing

_SHARES = {"cpu": 1 / 16, "cuda": 1 / 4, "mps": 1 / 4}
"""The share of a device's free memory that resident images may take."""

_PIECE = 256
"""Images that are made squares at a time."""


class Inputs(Protocol):
    """A split as a model reads it."""

    @property
    def labels(self) -> Tensor:
        """Labels (n,), long, on the device."""
        ...

    @property
    def reads_ahead(self) -> bool:
        """Whether ``read`` does work that is worth doing in another thread."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def for_epoch(self, seed: int, epoch: int) -> Inputs:
        """Return the split as a run with this seed sees it in this epoch: augmented, if it is to be augmented."""
        ...

    def batch(self, indices: Tensor) -> Tensor:
        """Return the inputs at ``indices`` (CPU, long), on the device."""
        ...

    def read(self, indices: Tensor) -> Callable[[], Tensor]:
        """Do the slow part of ``batch`` in any thread; the returned function completes it in the computing thread."""
        ...


@dataclass(frozen=True)
class ImageInputs:
    """Images as uint8 (n, height, width, 3), resident on the device or streamed to it; labels (n,) on the device.

    ``steps`` make squares of them, on the host or on the device. Without an epoch, images are not augmented.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    steps: tuple[Step, ...] = ()
    on_host: bool = True
    augmentation: FlipCrop | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def augmented(self) -> bool:
        """Whether training sees other pixels in every epoch, so that features computed once are of no use."""
        return self.augmentation is not None

    @property
    def reads_ahead(self) -> bool:
        """Whether images come from the host: memory, or the disk behind it."""
        return self.images.device.type == "cpu"

    def for_epoch(self, seed: int, epoch: int) -> ImageInputs:
        """Return the split with the crops of an epoch, or this split if it is not augmented."""
        if self.augmentation is None:
            return self
        crops = self.augmentation.step(seed, epoch, None if self.on_host else self.mean.device)
        # The last step makes inputs of whole squares; the crops take its place.
        return replace(self, steps=(*self.steps[:-1], crops))

    def batch(self, indices: Tensor) -> Tensor:
        """Return normalised images (B, 3, H, W) on the device."""
        return self.read(indices)()

    def read(self, indices: Tensor) -> Callable[[], Tensor]:
        """Gather images and start their copy; the returned function waits for it and completes it on the device."""
        if self.images.device.type != "cpu":
            return lambda: self.gather(sent(indices, self.images.device))
        chosen = _gather(self.images, indices, pinned=self.mean.is_cuda)
        if self.on_host:
            for step in self.steps:
                chosen = step(chosen, indices)
            arrive = _send(_pinned(chosen) if self.mean.is_cuda else chosen, self.mean.device)
            return lambda: self._normalised(arrive())
        arrive = _send(chosen, self.mean.device)
        return lambda: self._squares(arrive(), sent(indices, self.mean.device))

    def gather(self, indices: Tensor) -> Tensor:
        """Return normalised images (B, 3, H, W) of resident ones at ``indices`` on the device.

        Every operation is one on the device, whose shape depends on the number of indices alone.
        """
        return self._squares(self.images[indices], indices)

    def _squares(self, chosen: Tensor, indices: Tensor) -> Tensor:
        for step in self.steps:
            chosen = step(chosen, indices)
        return self._normalised(chosen)

    def _normalised(self, chosen: Tensor) -> Tensor:
        return (chosen.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std


@dataclass(frozen=True)
class FeatureInputs:
    """Features (n, D) and labels (n,) on the device."""

    features: Tensor
    labels: Tensor

    @property
    def reads_ahead(self) -> bool:
        """False: features are on the device already."""
        return False

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def for_epoch(self, seed: int, epoch: int) -> FeatureInputs:
        """Return these features: they are the same in every epoch."""
        return self

    def batch(self, indices: Tensor) -> Tensor:
        """Return features (B, D)."""
        return self.features[sent(indices, self.features.device)]

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


def _pinned(images: Tensor) -> Tensor:
    """Return images in pinned memory, from which a GPU can fetch them."""
    return images if images.is_pinned() else images.pin_memory()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a copy to a CUDA device is not waited for.

    One to MPS is: it would read memory that may have been freed meanwhile (pytorch issue 189690).
    """
    return tensor.to(device, non_blocking=device.type != "mps")


def _send(images: Tensor, device: torch.device) -> Callable[[], Tensor]:
    """Start to copy pinned ``images`` to a GPU; the returned function makes the GPU, not the caller, wait for them."""
    if device.type != "cuda":
        return lambda: sent(images, device)
    aside = side_streams(device).copies
    # A new thread is on the first GPU, and leaving a stream of another one would set that up, which takes its memory.
    with torch.cuda.device(device), torch.cuda.stream(aside):
        copy = images.to(device, non_blocking=True)
    arrived = aside.record_event()

    def arrive() -> Tensor:
        computing = torch.cuda.current_stream(device)
        computing.wait_event(arrived)
        # The copy stream owns the memory and must not reuse it while the computing stream still reads it.
        copy.record_stream(computing)
        return copy

    return arrive


def image_inputs(
    split: Split, preprocessing: Preprocessing, device: torch.device, *, resident: bool, augment: Augment = "none"
) -> ImageInputs:
    """Wrap a split, whose images are streamed from the memory map, or are ``resident`` if they fit.

    Resident images are made squares once. They are kept on a GPU if they take no more than a quarter of its free
    memory; on the CPU they are kept if they are stored at a smaller size and take no more than a sixteenth of the free
    memory. Inputs are the same bits either way. Images to ``augment`` have a margin (``framing.with_margin``).
    """
    shape = (1, 3, 1, 1)
    mean = torch.tensor(preprocessing.mean, device=device).view(shape)
    std = torch.tensor(preprocessing.std, device=device).view(shape)
    labels = torch.from_numpy(np.array(split.labels)).to(device)
    source = split.framing or Framing(split.pixels.shape[1])
    augmentation = None if augment == "none" else FlipCrop(len(split), source.side, preprocessing.image_size)
    steps, on_host = _steps(split, source, augmentation, device)
    inputs = ImageInputs(_map(split.pixels), labels, mean, std, steps, on_host, augmentation)
    return _made_resident(inputs, source.side) if resident and _may_be_resident(inputs, source.side) else inputs


def _steps(
    split: Split, source: Framing, augmentation: FlipCrop | None, device: torch.device
) -> tuple[tuple[Step, ...], bool]:
    """Return the steps from stored images to inputs that are not augmented, and whether they run on the host."""
    height, width = split.pixels.shape[1:3]
    stages = []
    if (height, width) != (source.side, source.side):
        stages.append((height, width, source))
    if augmentation is not None:
        stages.append((source.side, source.side, Framing(augmentation.side)))
    # Apple's GPUs have no float64, and on a CPU Pillow is faster.
    on_device = [device_framing(*stage, device) for stage in stages] if device.type == "cuda" else [None]
    steps = tuple(step for step in on_device if step is not None)
    if len(steps) == len(on_device):
        return steps, False
    return tuple(HostFraming(framing) for _, _, framing in stages), True


def _may_be_resident(inputs: ImageInputs, side: int) -> bool:
    device = inputs.mean.device
    if device.type == "cpu":
        # A map of images that are squares already is as good as a copy.
        worthwhile = inputs.images.shape[1:3] != (side, side)
    else:
        worthwhile = inputs.augmentation is None or not inputs.on_host
    return worthwhile and len(inputs) * side * side * 3 <= _SHARES[device.type] * free_memory(device)


def _made_resident(inputs: ImageInputs, side: int) -> ImageInputs:
    """Make squares of all images, once, and keep them on the device."""
    count, device = len(inputs), inputs.mean.device
    steps = inputs.steps if inputs.augmentation is None else inputs.steps[:-1]
    images = torch.empty((count, side, side, 3), dtype=torch.uint8, device=device)
    for indices in torch.arange(count).split(_PIECE):
        chosen = _gather(inputs.images, indices, pinned=False)
        chosen = chosen if inputs.on_host else chosen.to(device)
        for step in steps:
            chosen = step(chosen, indices)
        images[indices[0] : indices[-1] + 1] = chosen.to(device)
    return replace(inputs, images=images, steps=inputs.steps[len(steps) :])


def _map(pixels: NDArray[np.uint8]) -> Tensor:
    with warnings.catch_warnings():
        # The memory map is read-only, which torch warns about; nothing writes to it.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(pixels)
