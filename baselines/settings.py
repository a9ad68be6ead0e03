"""The settings of the baselines, which a plan reads without torch."""

from __future__ import annotations

from dataclasses import dataclass

from shipbench.errors import InputError


@dataclass(frozen=True)
class NoSettings:
    """A method without settings of its own."""


@dataclass(frozen=True)
class VptConfig:
    """Settings of VPT (Jia et al., ECCV 2022).

    ``prompt_length`` tokens (p) of width ``project``, projected to the backbone's width by one shared linear layer; 0
    means prompts of the backbone's width and no projection. ``dropout`` acts on (projected) prompts in training.
    """

    prompt_length: int = 10
    project: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.prompt_length < 1:
            raise InputError(f"prompt_length is {self.prompt_length}; it must be 1 or more")
        if self.project < 0:
            raise InputError(f"project is {self.project}; it must be 0 or more")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
