"""The settings of the baselines, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from shipbench.settings import Settings


@dataclass(frozen=True)
class VptConfig(Settings):
    """Settings of VPT (Jia et al., ECCV 2022).

    There are ``prompt_length`` prompts (p) of width ``project``, which one shared linear layer projects to the
    backbone's width; at ``project`` 0, prompts have the backbone's width and there is no projection. ``dropout`` is
    the dropout rate of the (projected) prompts in training.
    """

    prompt_length: Annotated[int, Ge(1)] = 10
    project: Annotated[int, Ge(0)] = 0
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
