"""Corrupted images: noise, blur, JPEG artefacts and low contrast in five severities.

The strengths are those of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261) for images of 224 pixels.
torchvision renders noise, blur and contrast, Pillow the JPEG artefacts. Contrast is reduced towards the mean grey of
the image, where ImageNet-C takes the mean of each channel.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from shipbench.errors import InputError, unknown
from shipbench.settings import comma_list

if TYPE_CHECKING:
    from torch import Tensor

RULES = 1
"""Part of the id of every evaluation; raise it whenever a corruption changes the pixels."""

SEVERITIES = (1, 2, 3, 4, 5)

STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "gaussian-noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "blur": (1, 2, 3, 4, 6),
    "jpeg": (25, 18, 15, 10, 7),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
}
"""The strength of each corruption by severity.

Standard deviation of the noise, for pixels in [0, 1]; standard deviation of the Gaussian blur in pixels of an image of
224, in proportion for other sizes; JPEG quality; factor of the contrast.
"""

_REFERENCE_SIDE = 224


@dataclass(frozen=True)
class Corruption:
    """One corruption at one severity.

    The noise of an image depends on its place in the split alone: not on batches, and not on the severity, which only
    scales it.
    """

    name: str
    severity: int

    def __post_init__(self) -> None:
        """Raise ``InputError`` for an unknown name or severity."""
        if self.name not in STRENGTHS:
            raise unknown("corruption", self.name, STRENGTHS)
        if self.severity not in SEVERITIES:
            raise InputError(f"severity {self.severity} is not one of 1 to {SEVERITIES[-1]}")

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """Return the corrupted images (B, side, side, 3), uint8; ``indices`` (B,) are their places in the split."""
        import torch

        render, strength = _RENDERERS[self.name], STRENGTHS[self.name][self.severity - 1]
        corrupted = torch.empty_like(images)
        for row, index in enumerate(indices.tolist()):
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(self._seed(index))
                corrupted[row] = render(images[row].permute(2, 0, 1), strength).permute(1, 2, 0)
        return corrupted

    def _seed(self, index: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.name} {index}".encode()).digest()[:7], "big")


def _gaussian_noise(image: Tensor, deviation: float) -> Tensor:
    from torchvision.transforms.v2 import functional

    noisy = functional.gaussian_noise(image.float() / 255, sigma=deviation)
    return (noisy * 255).round().to(image.dtype)


def _blur(image: Tensor, deviation: float) -> Tensor:
    from torchvision.transforms.v2 import functional

    sigma = deviation * image.shape[-1] / _REFERENCE_SIDE
    side = 2 * math.ceil(3 * sigma) + 1
    return functional.gaussian_blur(image, [side, side], [sigma, sigma])


def _jpeg(image: Tensor, quality: float) -> Tensor:
    import torch

    compressed = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(compressed, "JPEG", quality=int(quality))
    with Image.open(compressed) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)


def _contrast(image: Tensor, factor: float) -> Tensor:
    from torchvision.transforms.v2 import functional

    return functional.adjust_contrast(image, factor)


_RENDERERS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "gaussian-noise": _gaussian_noise,
    "blur": _blur,
    "jpeg": _jpeg,
    "contrast": _contrast,
}


def parse_corruptions(names: str, severities: str | None) -> tuple[Corruption, ...]:
    """Read lists such as ``blur,jpeg`` (or ``all``) and ``1-5`` (or ``1,3``); None stands for all severities.

    Raises ``InputError`` for an unknown name or severity.
    """
    listed = comma_list(names)
    chosen = list(STRENGTHS) if "all" in listed else listed
    if not chosen:
        raise InputError(f"--corrupt is empty; name one or more of {', '.join(STRENGTHS)}")
    levels = SEVERITIES if severities is None else _severities(severities)
    return tuple(Corruption(name, severity) for name in chosen for severity in levels)


def _severities(text: str) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash) and max(len(first), len(last)) < 4):
            raise InputError(f"--severity {text!r} is not a list of severities, as in 3, 1-5 or 1,3,5")
        numbers += range(int(first), int(last if dash else first) + 1)
    if not numbers:
        raise InputError(f"--severity {text!r} names no severity; the lowest is 1 and the highest {SEVERITIES[-1]}")
    return sorted(set(numbers))
