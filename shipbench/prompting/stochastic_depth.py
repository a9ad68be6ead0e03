"""Stochastic depth (Huang et al. 2016), drawn on the host before the pass.

Dropping a branch for an image drops it for all tokens of the image, prompts included. Prompts that do not depend on
images therefore have one state per distinct drop history instead of one per image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


def drop_rates(vit: VisionTransformer) -> list[float]:
    """Return the drop rate with which the backbone built each block."""
    return [float(getattr(block.drop_path1, "drop_prob", 0.0) or 0.0) for block in vit.blocks]


def sample_drop_factors(rates: Sequence[float], batch: int) -> Tensor | None:
    """Draw factors (L, 2, B), each 0 or 1 / keep, from torch's CPU generator; return None if all rates are 0.

    The order of draws is that of timm's ``DropPath``: block by block, the attention branch before the MLP branch.
    """
    if not any(rates):
        return None
    factors = torch.ones(len(rates), 2, batch)
    for block, rate in enumerate(rates):
        if rate > 0:
            keep = 1.0 - rate
            for branch in range(2):
                factors[block, branch].bernoulli_(keep).div_(keep)
    return factors


@dataclass(frozen=True)
class DropFactors:
    """The factors of one step, by block, branch (attention, then MLP) and image.

    ``values`` (L, 2, B) are 0 or 1 / keep. ``scales`` (L) are the same 1 / keep as Python numbers, or None for a block
    that drops nothing. A captured or compiled step treats ``scales`` as constants and reads ``values``, which may be
    refilled in place (``shipbench.prompting.step_buffer``).
    """

    values: Tensor
    scales: tuple[float | None, ...]

    @classmethod
    def of(cls, values: Tensor) -> DropFactors:
        """Wrap factors (L, 2, B) on the CPU, with scales read from them."""
        scales = (None if bool((block == 1).all()) else float(block.max()) for block in values)
        return cls(values, tuple(scales))

    @classmethod
    def joined(cls, parts: Sequence[DropFactors]) -> DropFactors:
        """Concatenate the images of several runs with equal drop rates."""
        # A block whose branches every image of a run drops has no scale in that run's values.
        by_block = zip(*(part.scales for part in parts), strict=True)
        scales = (max((scale for scale in block if scale is not None), default=None) for block in by_block)
        return cls(torch.cat([part.values for part in parts], dim=2), tuple(scales))

    def to(self, device: torch.device) -> DropFactors:
        """Return the factors on ``device``; the copy to a CUDA device is not waited for."""
        if self.values.device == device:
            return self
        values = self.values.pin_memory() if device.type == "cuda" else self.values
        # A copy to MPS that is not waited for reads memory that may have been freed (pytorch issue 189690).
        return replace(self, values=values.to(device, non_blocking=device.type != "mps"))


class StochasticDepth:
    """The stochastic depth of one model: each training pass draws its factors, or reads them from a buffer.

    A captured step cannot draw. It is captured inside ``reading``, and before every replay the caller draws with
    ``draw``, in the same order from the same generator, and refills the buffer.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        self.rates = tuple(drop_rates(vit))
        self._buffer: DropFactors | None = None

    @property
    def scales(self) -> tuple[float | None, ...]:
        """1 / keep of every block, rounded as in the factors, or None for a block that drops nothing."""
        return tuple(float(torch.ones(()).div_(1.0 - rate)) if rate > 0 else None for rate in self.rates)

    def draw(self, images: int) -> Tensor | None:
        """Draw factors (L, 2, ``images``) on the host; return None, and draw nothing, if no block drops a branch."""
        return sample_drop_factors(self.rates, images)

    def factors(self, images: int) -> DropFactors | None:
        """Return the factors of a training pass over ``images`` images: those of the buffer, or new ones."""
        if self._buffer is not None:
            return self._buffer
        values = self.draw(images)
        return None if values is None else DropFactors(values, self.scales)

    @contextmanager
    def reading(self, factors: DropFactors | None) -> Iterator[None]:
        """Let all passes in the block read ``factors`` instead of drawing; with None, they draw."""
        self._buffer = factors
        try:
            yield
        finally:
            self._buffer = None
