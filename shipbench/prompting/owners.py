"""Which state of a prompt stream each image of a batch has, and the values of that state for each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from shipbench.prompting.static import one_hot, select_rows


class Owner(Protocol):
    """A map from images to states."""

    def spread(self, values: tuple[Tensor, ...], chosen: Tensor | None = None) -> list[Tensor]:
        """Turn each of several per-state ``values`` (S, ...) into per-image ones (B, ...).

        With ``chosen`` images (B',), they are (B', ...).
        """
        ...


@dataclass(frozen=True)
class IndexedOwner:
    """The state of each image as ``indices`` (B,), on the CPU."""

    indices: Tensor

    def spread(self, values: tuple[Tensor, ...], chosen: Tensor | None = None) -> list[Tensor]:
        """Index the values."""
        indices = self.indices if chosen is None else self.indices[chosen]
        return [each.index_select(0, indices) for each in values]


@dataclass(frozen=True)
class OneHotOwner:
    """The state of each image as ``indices`` (R, B / R) into the S / R = ``count`` states of its run, on any device.

    The R runs of a stack keep separate states, so values of one run that are not finite do not reach another.
    """

    indices: Tensor
    count: int

    def spread(self, values: tuple[Tensor, ...], chosen: Tensor | None = None) -> list[Tensor]:
        """Multiply the values by one-hot states; a static pass never chooses images."""
        assert chosen is None
        hot = one_hot(self.indices, self.count)
        return [select_rows(hot, each.unflatten(0, (-1, self.count))).flatten(0, 1) for each in values]
