"""Resizing and cropping batches: on the host with Pillow, on a GPU with the same integers.

Pillow resizes 8-bit images with integers: weights are rounded to 22 fractional bits, and each of its two passes rounds
to 8 bits. Products of such weights and pixels, and their sums, stay far below 2**53. Computed in float64 they are exact
in any order, so a matrix product gives Pillow's bytes on any device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shipbench.data.framing import Framing, resize, scaled_size

Step: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From images (B, height, width, 3), uint8, and their indices (B,), long, to images (B, side, side, 3), uint8.

A step for the host takes and returns CPU tensors and may run in any thread.
"""

# Those of Pillow's Resample.c.
_FRACTIONAL_BITS = 22
_A = -0.5
_SUPPORT = 2.0

_COMPARED_PIXELS = 1000
"""Pixels by which the order of Pillow's passes is told: about half of them depend on it."""


@dataclass(frozen=True)
class HostFraming:
    """Frames images of any one size with Pillow."""

    framing: Framing

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """Return framed images; see ``Step``."""
        side, how = self.framing.side, self.framing.resize
        framed = [resize(Image.fromarray(pixels), side, how) for pixels in images.numpy()]
        return torch.from_numpy(np.stack(framed))


@dataclass(frozen=True)
class DeviceFraming:
    """Frames images of one size: ``rows`` (side, height) and ``columns`` (side, width) are integer weights, float64."""

    rows: Tensor
    columns: Tensor
    rows_first: bool

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """Return framed images; see ``Step``."""
        return resample(images, self.rows, self.columns, rows_first=self.rows_first)


def device_framing(height: int, width: int, framing: Framing, device: torch.device) -> DeviceFraming | None:
    """Return the step that frames images of one size as ``HostFraming`` does, byte for byte.

    Pillow chooses the order of its passes by the sizes and by its version, so both orders are compared with it on
    noise. Returns None if neither gives its bytes.
    """
    (scaled_width, scaled_height), (left, top) = scaled_size((width, height), framing.side, framing.resize)
    rows = whole_weights(height, scaled_height)[top : top + framing.side]
    columns = whole_weights(width, scaled_width)[left : left + framing.side]
    count = math.ceil(_COMPARED_PIXELS / framing.side**2)
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))
    indices = torch.arange(count)
    expected = HostFraming(framing)(noise, indices)
    for rows_first in (False, True):
        if torch.equal(DeviceFraming(rows, columns, rows_first)(noise, indices), expected):
            return DeviceFraming(rows.to(device), columns.to(device), rows_first)
    return None


def host_crops(images: Tensor, boxes: Tensor, flips: Tensor, side: int) -> Tensor:
    """Cut one box (top, left, height, width) from each image, resize it to a square of ``side``, flip it where asked.

    ``images`` (B, height, width, 3) uint8, ``boxes`` (B, 4) long and ``flips`` (B,) bool are CPU tensors.
    """
    crops = []
    for pixels, (top, left, height, width), flip in zip(images.numpy(), boxes.tolist(), flips.tolist(), strict=True):
        crop = Image.fromarray(pixels[top : top + height, left : left + width])
        # In two steps, so that the order of the passes does not depend on Pillow.
        columns_done = crop.resize((side, height), Image.Resampling.BICUBIC)
        square = np.asarray(columns_done.resize((side, side), Image.Resampling.BICUBIC))
        crops.append(square[:, ::-1] if flip else square)
    return torch.from_numpy(np.stack(crops))


def device_crops(images: Tensor, boxes: Tensor, flips: Tensor, side: int) -> Tensor:
    """Do the work of ``host_crops`` on the device of the tensors, byte for byte, without waiting for it."""
    top, left, height, width = boxes.unbind(1)
    rows = crop_weights(top, height, images.shape[1], side)
    columns = crop_weights(left, width, images.shape[2], side)
    columns = torch.where(flips.view(-1, 1, 1), columns.flip(1), columns)
    return resample(images, rows.unsqueeze(1), columns.unsqueeze(1))


def resample(images: Tensor, rows: Tensor, columns: Tensor, *, rows_first: bool = False) -> Tensor:
    """Resize images (B, height, width, 3), uint8, to (B, m, n, 3), uint8.

    ``rows`` are integer weights (m, height) and ``columns`` (n, width), float64, for all images, or (B, 1, m, height)
    and (B, 1, n, width) for each.
    """
    channels = images.permute(0, 3, 1, 2).double()
    if rows_first:
        resized = _to_bytes(_to_bytes(rows @ channels) @ columns.transpose(-1, -2))
    else:
        resized = _to_bytes(rows @ _to_bytes(channels @ columns.transpose(-1, -2)))
    return resized.permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)


def whole_weights(source: int, target: int) -> Tensor:
    """Return the integer weights (target, source), float64, with which Pillow resizes ``source`` pixels."""
    return crop_weights(torch.zeros(1, dtype=torch.long), torch.tensor([source]), source, target)[0]


def crop_weights(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """Return integer weights (B, target, source), float64, to resize ``length`` of ``source`` pixels from ``start`` on.

    ``start`` and ``length`` are (B,), long. The integers are those that Pillow's ``precompute_coeffs`` and
    ``normalize_coeffs_8bpc`` give for the crop alone.
    """
    first, taps = _taps(length.view(-1, 1), source, target)
    # Added one by one, because Pillow does: another order would round differently.
    total = torch.zeros_like(first)
    for weight in taps:
        total = total + weight
    columns = torch.arange(source, device=start.device)
    weights = torch.zeros(len(start), target, source, dtype=torch.float64, device=start.device)
    for tap, weight in enumerate(taps):
        column = (first + tap).long() + start.view(-1, 1)
        weights += torch.where(columns == column.unsqueeze(2), _fixed_point(weight / total).unsqueeze(2), 0.0)
    return weights


def _taps(length: Tensor, source: int, target: int) -> tuple[Tensor, list[Tensor]]:
    """Return the first pixel (B, target) under each target pixel's filter, and the filter there and beyond."""
    scale = length.double() / target
    stretch = scale.clamp(min=1.0)
    centres = (torch.arange(target, device=length.device, dtype=torch.float64) + 0.5) * scale
    first = (centres - _SUPPORT * stretch + 0.5).clamp(min=0).trunc()
    end = torch.minimum((centres + _SUPPORT * stretch + 0.5).trunc(), length.double())
    inverse = 1.0 / stretch
    most = 2 * math.ceil(_SUPPORT * max(source / target, 1.0)) + 1
    positions = [first + tap for tap in range(most)]
    return first, [torch.where(x < end, _bicubic((x - centres + 0.5) * inverse), 0.0) for x in positions]


def _bicubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = ((_A + 2.0) * x - (_A + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))


def _fixed_point(weights: Tensor) -> Tensor:
    scaled = weights * 2.0**_FRACTIONAL_BITS
    return torch.where(scaled < 0, scaled - 0.5, scaled + 0.5).trunc()


def _to_bytes(sums: Tensor) -> Tensor:
    # Half of the last place is added before the shift, as Pillow rounds.
    return sums.add_(2.0 ** (_FRACTIONAL_BITS - 1)).mul_(2.0**-_FRACTIONAL_BITS).floor_().clamp_(0, 255)
