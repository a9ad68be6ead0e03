"""On the device of ``--device``, small stored images and random crops become Pillow's bytes, resident or streamed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shipbench.backbones import Preprocessing
from shipbench.data.framing import Framing
from shipbench.data.types import Split
from shipbench.tasks.catalogue import Augment
from shipbench.training.augmentation import FlipCrop
from shipbench.training.inputs import ImageInputs, image_inputs
from shipbench.training.resampling import HostFraming, device_crops, device_framing, host_crops

PREPROCESSING = Preprocessing(224, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (96, 96), (300, 200), (61, 97)])
def test_images_are_framed_as_pillow_does(height: int, width: int, device: torch.device) -> None:
    images, indices = torch.from_numpy(noise(8, height, width)), torch.arange(8)
    step = device_framing(height, width, Framing(224), device)
    assert step is not None
    with torch.autocast(device.type, torch.bfloat16):
        framed = step(images.to(device), indices.to(device))
    assert torch.equal(framed.cpu(), HostFraming(Framing(224))(images, indices))


def test_crops_are_cut_as_pillow_does(device: torch.device) -> None:
    images = torch.from_numpy(noise(32, 256, 256))
    boxes, flips = map(torch.from_numpy, FlipCrop(32, 256, 224).draw(0, 0))
    cut = device_crops(images.to(device), boxes.to(device), flips.to(device), 224)
    assert torch.equal(cut.cpu(), host_crops(images, boxes, flips, 224))


@pytest.mark.parametrize("augment", ["none", "flip-crop"])
@pytest.mark.parametrize("stored", [32, 224])
def test_resident_images_are_the_inputs_of_streamed_ones(stored: int, augment: Augment, device: torch.device) -> None:
    side = 224 if augment == "none" else 256
    split = Split(noise(20, stored, stored), np.arange(20) % 4, Framing(side))

    def inputs(*, resident: bool) -> ImageInputs:
        return image_inputs(split, PREPROCESSING, device, resident=resident, augment=augment).for_epoch(3, 1)

    streamed, resident = inputs(resident=False), inputs(resident=True)
    indices = torch.tensor([3, 19, 0, 3])
    assert torch.equal(streamed.batch(indices), resident.batch(indices))
    if device.type == "cuda":
        assert resident.images.is_cuda
        assert torch.equal(resident.gather(indices.to(device)), streamed.batch(indices))
