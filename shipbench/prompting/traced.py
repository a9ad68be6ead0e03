"""Passes that are followed block by block, to explain a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from shipbench.prompting.forward import PassTrace
from shipbench.prompting.interface import AttentionRule


@dataclass(frozen=True)
class Traced:
    """An evaluation pass with its intermediate values.

    ``tokens`` (B, N, D) are the image tokens after the last block. ``guiding`` holds, by guided block, the indices
    (B, A) of the tokens of the previous block that guide its prompts.
    """

    trace: PassTrace
    rule: AttentionRule
    tokens: Tensor
    guiding: Mapping[int, Tensor] = field(default_factory=dict)


@runtime_checkable
class Traceable(Protocol):
    """A model over ``prompted_forward`` whose passes can be followed."""

    def traced(self, images: Tensor) -> Traced:
        """Run an evaluation pass on normalised images (B, 3, H, W) and return its intermediate values."""
        ...
