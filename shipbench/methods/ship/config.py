"""The settings of SHIP: the paper's values as defaults, and a setting for every part that can be switched off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from shipbench.settings import Settings

WITHOUT_CLASS_TOKEN = "hierarchy, attribute prompts and matching read the class token, which it does not have"


@dataclass(frozen=True)
class ShipConfig(Settings):
    """Settings of SHIP (Zhu et al., ICASSP 2025); the defaults are those of the official implementation.

    Each level has ``prompt_length`` (K) independent prompts, every block ``shared_length`` shared prompts, and each of
    the last ``attribute_levels`` levels ``attribute_length`` attribute prompts. ``threshold`` is the affinity below
    which a new level starts: at 1.0 and above, every block is a level. Levels that start at block ``end_layer`` or
    later are dropped. ``prototypes`` is the size of the attribute bank. ``feature`` is the token from which affinity
    and bank are computed: CLS, or the mean of the image tokens. An attribute prompt is ``attribute_scale`` of its
    guided part and the rest of its learned part; ``temperature`` divides the cosines that guide it, and
    ``normalise_bank`` scales the prototypes to length 1.

    ``attention`` is ``decoupled``, a softmax over the image and another over the prompts, of which ``attention_scale``
    is the share of the prompts, or ``coupled``, one softmax over both. With ``learn_scale``, that share starts at
    ``attention_scale`` and is trained: one number for all blocks, which may leave [0, 1]. ``prompt_attention`` lets
    prompts attend in the ``last`` block or in ``all``. ``matching_weight`` is the weight of the matching loss, which
    compares prompts with ``top_k`` image tokens.
    """

    prompt_length: Annotated[int, Ge(0)] = 10
    shared_length: Annotated[int, Ge(0)] = 10
    attribute_length: Annotated[int, Ge(0)] = 10
    attribute_levels: Annotated[int, Ge(0)] = 2
    attribute_scale: Annotated[float, Interval(ge=0, le=1)] = 0.1
    threshold: Annotated[float, Ge(-1)] = 0.95
    # The first level starts at block 0, so a smaller value would drop every level.
    end_layer: Annotated[int, Ge(1)] | None = None
    feature: Literal["cls", "mean"] = "cls"
    prototypes: Annotated[int, Ge(1)] = 200
    temperature: Annotated[float, Ge(1e-6)] = 1.0
    normalise_bank: bool = False
    attention: Literal["decoupled", "coupled"] = "decoupled"
    attention_scale: Annotated[float, Interval(ge=0, le=1)] = 0.1
    learn_scale: bool = False
    prompt_attention: Literal["last", "all"] = "last"
    matching_weight: Annotated[float, Ge(0)] = 0.5
    top_k: Annotated[int, Ge(1)] = 10

    @property
    def learns_scale(self) -> bool:
        """Whether the attention scale is trained; coupled attention has none."""
        return self.learn_scale and self.attention == "decoupled"

    @property
    def has_attributes(self) -> bool:
        """Whether there are attribute prompts."""
        return self.attribute_length > 0 and self.attribute_levels > 0

    @property
    def reads_class_token(self) -> bool:
        """Whether the features of the hierarchy or the selection of tokens need the backbone's class token."""
        return self.feature == "cls" or self.has_attributes or self.matching_weight > 0
