"""The three kinds of prompts of SHIP, and the blocks where each is present."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from shipbench.methods.ship.attributes import guide
from shipbench.methods.ship.config import ShipConfig
from shipbench.prompting import BlockPlan, Glimpse


def attribute_blocks(levels: list[int], config: ShipConfig) -> list[int]:
    """Return the first blocks of the last ``attribute_levels`` levels, which have attribute prompts; never block 0."""
    if not config.has_attributes:
        return []
    return [level for level in levels if level > 0][-config.attribute_levels :]


def ship_plan(levels: list[int], depth: int, config: ShipConfig) -> tuple[BlockPlan, ...]:
    """Return the prompts of every block.

    Independent and attribute prompts enter at the first block of a level and are carried through its other blocks;
    shared prompts are fresh in every block.
    """
    independent = ("independent",) if config.prompt_length else ()
    shared = ("shared",) if config.shared_length else ()
    with_attributes = attribute_blocks(levels, config)
    plan = []
    attribute: tuple[str, ...] = ()
    for block in range(depth):
        if block in levels:
            attribute = ("attribute",) if block in with_attributes else ()
            plan.append(BlockPlan(fresh=independent + shared, guided=attribute))
        else:
            plan.append(BlockPlan(carried=independent + attribute, fresh=shared))
    return tuple(plan)


class ShipPrompts(nn.Module):
    """The learned prompts: ``independent`` (K, D) per level, ``shared`` (S, D), ``attribute`` (levels, A, D).

    ``bank`` (C, D) is a buffer and is never trained. A kind of length 0 has no parameter.
    """

    shared: nn.Parameter | None
    attribute: nn.Parameter | None
    bank: Tensor | None

    def __init__(self, levels: list[int], depth: int, width: int, bank: Tensor | None, config: ShipConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = levels
        self.plan = ship_plan(levels, depth, config)
        self.attribute_blocks = attribute_blocks(levels, config)
        count = len(levels) if config.prompt_length else 0
        self.independent = nn.ParameterList(_xavier_prompt(config.prompt_length, width) for _ in range(count))
        shape = (len(self.attribute_blocks), config.attribute_length, width)
        self.register_parameter(
            "shared", _kaiming_prompt(config.shared_length, width) if config.shared_length else None
        )
        self.register_parameter("attribute", _kaiming_prompt(*shape) if self.attribute_blocks else None)
        if bank is not None and config.normalise_bank:
            bank = nn.functional.normalize(bank, dim=-1)
        self.register_buffer("bank", bank if self.attribute_blocks else None)

    def fresh(self, block: int, name: str) -> Tensor:
        """Return the independent prompts of the level that starts at ``block``, or the shared prompts."""
        if name == "independent":
            return self.independent[self.levels.index(block)].unsqueeze(0)
        assert self.shared is not None
        return self.shared.unsqueeze(0)

    def guided(self, block: int, name: str, glimpse: Glimpse) -> Tensor:
        """Return attribute prompts (B, A, D): scale * guided + (1 - scale) * learned.

        The guided part is a mixture of the bank, by the tokens that CLS attends to most.
        """
        assert self.attribute is not None
        assert self.bank is not None
        learned = self.attribute[self.attribute_blocks.index(block)]
        _, tokens = glimpse.top(self.config.attribute_length)
        guided = guide(tokens, self.bank, self.config.temperature)
        scale = self.config.attribute_scale
        return scale * guided + (1 - scale) * learned


def _xavier_prompt(length: int, width: int) -> nn.Parameter:
    """Draw from U(+-sqrt(6 / ((K + 1) D))): Xavier with the fans that torch computes for a (1, K, D) tensor."""
    bound = math.sqrt(6 / ((length + 1) * width))
    return nn.Parameter(torch.empty(length, width).uniform_(-bound, bound))


def _kaiming_prompt(*shape: int) -> nn.Parameter:
    """Draw from U(+-sqrt(6 / fan_in)), where fan_in is the product of all axes but the first."""
    bound = math.sqrt(6 / math.prod(shape[1:]))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
