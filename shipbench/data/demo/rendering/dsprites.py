"""Sprites after dSprites: a white shape on black, 64 x 64 pixels, with its factors of variation.

The factors and their values are those of Matthey et al. 2017, "dSprites: Disentanglement testing Sprites dataset"
(Apache-2.0); the outlines of the shapes are defined here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 64
SHAPES = ("square", "ellipse", "heart")
SCALES = np.linspace(0.5, 1.0, 6)
ORIENTATIONS = np.linspace(0.0, 2.0 * np.pi, 40)
POSITIONS = 32
HALF_WIDTH = 11.0  # pixels at scale 1; a square turned by 45 degrees still fits at every position
FIRST_CENTRE = 16.5  # pixels; neighbouring positions lie one pixel apart


@dataclass(frozen=True)
class Sprite:
    """One sprite, by the index of each factor's value."""

    shape: int
    scale: int
    orientation: int
    x: int
    y: int


def draw(sprite: Sprite) -> NDArray[np.uint8]:
    """Return the sprite as a ``(64, 64, 3)`` image of the values 0 and 255."""
    u, v = _local_coordinates(sprite)
    inside = (_in_square, _in_ellipse, _in_heart)[sprite.shape](u, v)
    return np.repeat(np.where(inside, np.uint8(255), np.uint8(0))[..., None], 3, axis=2)


def sample(seed: int, count: int, bins: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw ``count`` distinct images ``(count, 64, 64, 3)``; labels ``(count,)`` are the bins of x.

    Every ``bins`` consecutive images, counted from the first, contain each bin once.
    """
    rng = np.random.default_rng(seed)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    labels = np.empty(count, np.int64)
    contents: set[bytes] = set()
    while len(contents) < count:
        place = len(contents)
        if place % bins == 0:
            order = rng.permutation(bins)
        sprite = _random_sprite(rng, int(order[place % bins]), bins)
        image = draw(sprite)
        if image.tobytes() not in contents:
            contents.add(image.tobytes())
            images[place], labels[place] = image, x_bin(sprite, bins)
    return images, labels


def x_bin(sprite: Sprite, bins: int) -> int:
    """Return the index of the sprite's x among ``bins`` equal ranges of the 32 positions."""
    return sprite.x // (POSITIONS // bins)


def _random_sprite(rng: np.random.Generator, x_range: int, bins: int) -> Sprite:
    width = POSITIONS // bins
    return Sprite(
        shape=int(rng.integers(len(SHAPES))),
        scale=int(rng.integers(len(SCALES))),
        orientation=int(rng.integers(len(ORIENTATIONS))),
        x=x_range * width + int(rng.integers(width)),
        y=int(rng.integers(POSITIONS)),
    )


def _local_coordinates(sprite: Sprite) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixel centres in the sprite's frame, in half widths, rounded to be the same on every machine."""
    pixels = np.arange(SIZE) + 0.5
    dx = pixels[None, :] - (FIRST_CENTRE + sprite.x)
    dy = pixels[:, None] - (FIRST_CENTRE + sprite.y)
    angle = float(ORIENTATIONS[sprite.orientation])
    cos, sin = round(float(np.cos(angle)), 12), round(float(np.sin(angle)), 12)
    unit = HALF_WIDTH * float(SCALES[sprite.scale])
    return np.round((cos * dx + sin * dy) / unit, 9), np.round((cos * dy - sin * dx) / unit, 9)


def _in_square(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.maximum(np.abs(u), np.abs(v)) <= 1.0


def _in_ellipse(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    return u * u + 4.0 * v * v <= 1.69


def _in_heart(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    x, y = 1.05 * u, 0.15 - 1.05 * v
    round_part = x * x + y * y - 1.0
    return round_part * round_part * round_part <= x * x * y * y * y
