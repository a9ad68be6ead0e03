"""Random crops and flips: their distribution, what they depend on, and that runs repeat them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from shipbench.backbones import Preprocessing
from shipbench.data.framing import Framing
from shipbench.data.types import Split
from shipbench.training import inputs as inputs_module
from shipbench.training.augmentation import FlipCrop
from shipbench.training.inputs import ImageInputs, image_inputs

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(28, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def augmented(height: int = 32, width: int = 32, *, resident: bool = False) -> ImageInputs:
    """Twelve images, kept at 32 pixels for inputs of 28."""
    pixels = np.random.default_rng(5).integers(0, 256, (12, height, width, 3), dtype=np.uint8)
    split = Split(pixels, np.arange(12) % 3, Framing(32))
    return image_inputs(split, PREPROCESSING, CPU, resident=resident, augment="flip-crop")


def test_boxes_lie_in_the_square_with_the_areas_and_ratios_asked_for() -> None:
    boxes, flips = FlipCrop(20_000, 256, 224).draw(0, 0)
    top, left, height, width = boxes.T
    assert (boxes >= 0).all()
    assert (top + height <= 256).all()
    assert (left + width <= 256).all()
    share, ratio = height * width / 256**2, width / height
    assert 0.075 < share.min() < 0.09
    assert 0.97 < share.max() <= 1
    assert 0.74 < ratio.min() < 0.76
    assert 1.31 < ratio.max() < 1.35
    assert 0.48 < flips.mean() < 0.52


def test_boxes_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    image = Image.new("RGB", (256, 256))
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    ours = FlipCrop(4000, 256, 224).draw(3, 1)[0]
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        difference = np.quantile(ours, quantile, axis=0) - np.quantile(theirs, quantile, axis=0)
        assert np.abs(difference).max() <= 8


def test_crops_depend_on_seed_epoch_and_image() -> None:
    draws = [FlipCrop(50, 256, 224).draw(seed, epoch)[0] for seed in (0, 1, 2**62) for epoch in (0, 1)]
    for index, boxes in enumerate(draws):
        for other in draws[index + 1 :]:
            assert (boxes != other).any(axis=1).mean() > 0.9
    assert len(np.unique(draws[0], axis=0)) > 45
    assert np.array_equal(draws[0], FlipCrop(50, 256, 224).draw(0, 0)[0])


def test_the_same_numbers_are_drawn_in_every_release() -> None:
    boxes, flips = FlipCrop(3, 256, 224).draw(0, 0)
    assert boxes.tolist() == [[30, 8, 73, 82], [0, 1, 254, 253], [0, 47, 194, 202]]
    assert flips.tolist() == [True, True, True]


def test_a_batch_in_parts_or_another_order_holds_the_same_crops() -> None:
    epoch = augmented().for_epoch(7, 2)
    whole = epoch.batch(torch.arange(12))
    assert torch.equal(torch.cat([epoch.batch(part) for part in torch.arange(12).split(5)]), whole)
    order = torch.randperm(12)
    assert torch.equal(epoch.batch(order), whole[order])
    assert whole.shape == (12, 3, 28, 28)


def test_epochs_differ_and_no_global_generator_is_used() -> None:
    inputs = augmented()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (inputs.for_epoch(0, epoch).batch(torch.arange(12)) for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_an_epoch_the_whole_image_is_seen() -> None:
    inputs = augmented()
    resized = [
        np.asarray(Image.fromarray(pixels).resize((28, 28), Image.Resampling.BICUBIC))
        for pixels in inputs.images.numpy()
    ]
    expected = (torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    assert torch.equal(inputs.batch(torch.arange(12)), expected)


@pytest.mark.parametrize("size", [(32, 32), (20, 20), (20, 26)])
def test_stored_small_or_resident_images_are_augmented_alike(size: tuple[int, int]) -> None:
    streamed, resident = augmented(*size), augmented(*size, resident=True)
    assert (resident.images.shape[1:3] == (32, 32)) or size == (32, 32)
    for view in (lambda inputs: inputs, lambda inputs: inputs.for_epoch(3, 1)):
        assert torch.equal(view(streamed).batch(torch.arange(12)), view(resident).batch(torch.arange(12)))


def test_the_steps_of_a_gpu_give_the_inputs_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    host = augmented(20, 26)
    steps = [
        inputs_module.device_framing(20, 26, Framing(32), CPU),
        inputs_module.device_framing(32, 32, Framing(28), CPU),
    ]
    assert None not in steps
    device = replace(host, steps=tuple(steps), on_host=False)  # type: ignore[arg-type]
    indices = torch.tensor([3, 11, 0, 5])
    for view in (lambda inputs: inputs, lambda inputs: inputs.for_epoch(3, 1)):
        assert torch.equal(view(device).batch(indices), view(host).batch(indices))
        assert torch.equal(view(device).gather(indices), view(host).batch(indices))


def test_inputs_that_are_not_augmented_are_the_same_in_every_epoch() -> None:
    pixels = np.zeros((4, 28, 28, 3), np.uint8)
    inputs = image_inputs(Split(pixels, np.arange(4)), PREPROCESSING, CPU, resident=False)
    assert not inputs.augmented
    assert augmented().augmented
    assert inputs.for_epoch(0, 3) is inputs
