"""Resizing on a device gives Pillow's bytes, and both kinds of crops are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from shipbench.data.framing import Framing
from shipbench.tasks.catalogue import Resize
from shipbench.training import resampling
from shipbench.training.resampling import HostFraming, device_crops, device_framing, host_crops

CPU = torch.device("cpu")


def noise(count: int, height: int, width: int) -> Tensor:
    """Random pixels, with all-black and all-white ones: they overshoot most."""
    rng = np.random.default_rng(height * 1000 + width)
    pixels = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    pixels[0] = rng.choice(np.array([0, 255], np.uint8), pixels[0].shape)
    return torch.from_numpy(pixels)


def in_pillow(images: Tensor, width: int, height: int) -> Tensor:
    resized = [Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC) for pixels in images.numpy()]
    return torch.from_numpy(np.stack([np.asarray(image) for image in resized]))


@pytest.mark.parametrize("size", [32, 64, 72, 96, 300])
def test_the_sizes_of_vtab_are_resized_as_pillow_does(size: int) -> None:
    images = noise(8, size, size)
    step = device_framing(size, size, Framing(224), CPU)
    assert step is not None
    assert torch.equal(step(images, torch.arange(8)), in_pillow(images, 224, 224))


@settings(max_examples=60)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    side=st.integers(1, 96),
    how=st.sampled_from(["squash", "crop"]),
)
@example(height=100, width=60, side=64, how="squash")
@example(height=60, width=100, side=64, how="squash")
@example(height=1, width=1, side=3, how="crop")
@example(height=120, width=33, side=7, how="crop")
def test_any_size_is_framed_as_pillow_does(height: int, width: int, side: int, how: Resize) -> None:
    images, framing = noise(3, height, width), Framing(side, how)
    step = device_framing(height, width, framing, CPU)
    assert step is not None
    framed = step(images, torch.arange(3))
    assert framed.is_contiguous()
    assert torch.equal(framed, HostFraming(framing)(images, torch.arange(3)))


def test_autocast_does_not_touch_the_weights() -> None:
    images = noise(2, 20, 30)
    step = device_framing(20, 30, Framing(32), CPU)
    assert step is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(step(images, torch.arange(2)), in_pillow(images, 32, 32))


def test_a_pillow_that_rounds_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def brighter(image: Image.Image, side: int, how: Resize) -> np.ndarray:
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) // 2

    monkeypatch.setattr(resampling, "resize", brighter)
    assert device_framing(20, 20, Framing(32), CPU) is None


@st.composite
def boxes(draw: st.DrawFn, size: int = 40) -> list[int]:
    height, width = draw(st.integers(1, size)), draw(st.integers(1, size))
    return [draw(st.integers(0, size - height)), draw(st.integers(0, size - width)), height, width]


@settings(max_examples=40)
@given(chosen=st.lists(boxes(), min_size=1, max_size=6), side=st.integers(1, 48), flipped=st.booleans())
def test_crops_on_a_device_are_those_on_the_host(chosen: list[list[int]], side: int, flipped: bool) -> None:
    images, box = noise(len(chosen), 40, 40), torch.tensor(chosen)
    flips = torch.arange(len(chosen)) % 2 == int(flipped)
    assert torch.equal(device_crops(images, box, flips, side), host_crops(images, box, flips, side))


def test_a_crop_is_cut_resized_and_flipped() -> None:
    images = noise(2, 40, 40)
    box, flips = torch.tensor([[3, 5, 20, 20], [0, 10, 12, 12]]), torch.tensor([False, True])
    crops = host_crops(images, box, flips, 16)
    assert torch.equal(crops[:1], in_pillow(images[:1, 3:23, 5:25], 16, 16))
    assert torch.equal(crops[1:], in_pillow(images[1:, 0:12, 10:22], 16, 16).flip(2))
