"""Images become squares as in the field's loaders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from shipbench.data.framing import resize, scaled_size, with_margin


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(max_examples=60)
@given(width=st.integers(1, 90), height=st.integers(1, 90), side=st.integers(1, 64))
def test_crop_is_torchvisions_resize_and_central_crop(width: int, height: int, side: int) -> None:
    image = noise(width, height)
    theirs = Compose([Resize(side, InterpolationMode.BICUBIC), CenterCrop(side)])(image)
    assert np.array_equal(resize(image, side, "crop"), np.asarray(theirs))


def test_squash_does_not_keep_the_aspect_ratio() -> None:
    image = noise(60, 20)
    assert np.array_equal(resize(image, 24), np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC)))
    assert scaled_size((60, 20), 24, "squash") == ((24, 24), (0, 0))
    assert scaled_size((60, 20), 24, "crop") == ((72, 24), (24, 0))


@pytest.mark.parametrize(("side", "kept"), [(224, 256), (336, 384), (70, 80), (32, 37)])
def test_images_to_augment_are_kept_an_eighth_larger(side: int, kept: int) -> None:
    assert with_margin(side) == kept
