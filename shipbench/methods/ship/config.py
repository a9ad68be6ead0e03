"""SHIP's settings: the paper's values as defaults, every part with a switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shipbench.errors import InputError


@dataclass(frozen=True)
class ShipConfig:
    """Settings of SHIP (Zhu et al., ICASSP 2025); the defaults are those of the official implementation.

    ``prompt_length`` (K) independent prompts per level, ``shared_length`` shared prompts in every block and
    ``attribute_length`` attribute prompts in each of the last ``attribute_levels`` levels. ``threshold`` on the
    affinity decides the levels: at 1.0 and above every block is a level of its own. ``prototypes`` is the size of
    the attribute bank. ``feature`` is the token that affinity and bank are made of.
    """

    prompt_length: int = 10
    shared_length: int = 10
    attribute_length: int = 10
    attribute_levels: int = 2
    attribute_scale: float = 0.1
    threshold: float = 0.95
    end_layer: int | None = None
    feature: Literal["cls", "mean"] = "cls"
    prototypes: int = 200
    temperature: float = 1.0
    normalise_bank: bool = False
    attention: Literal["decoupled", "coupled"] = "decoupled"
    attention_scale: float = 0.1
    prompt_attention: Literal["last", "all"] = "last"
    matching_weight: float = 0.5
    top_k: int = 10

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("prompt_length", "shared_length", "attribute_length", "attribute_levels"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("prototypes", "top_k"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.end_layer is not None and self.end_layer < 1:
            raise InputError(
                f"end_layer is {self.end_layer}; it must be 1 or more, as the first level starts at block 0"
            )
        for name in ("attention_scale", "attribute_scale"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        for name, least in (("temperature", 1e-6), ("matching_weight", 0.0), ("threshold", -1.0)):
            if not getattr(self, name) >= least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    @property
    def has_attributes(self) -> bool:
        """Whether attribute prompts are wanted at all."""
        return self.attribute_length > 0 and self.attribute_levels > 0
