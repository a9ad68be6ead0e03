"""One pass for several runs that share the frozen backbone, each with its own prompts and its own images.

The images of a stack of R runs are R x B, run after run. A run sees its own prompts alone, and no image sees another,
so that every output and gradient is that of a separate pass, up to the rounding of larger matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.prompting.forward import PassOutput, prompted_forward
from shipbench.prompting.interface import AttentionRule, BlockPlan, Glimpse, PromptSource
from shipbench.prompting.streams import PromptMemo


@dataclass(frozen=True)
class StackInput:
    """What one run brings to a pass, with all its random numbers drawn; see ``prompted_forward`` for the names.

    ``fresh`` are the tokens that the source has for this pass, by block and name.
    """

    source: PromptSource
    fresh: Mapping[tuple[int, str], Tensor]
    rule: AttentionRule
    match_top: int
    drop_factors: Tensor | None


def draw_stack_input(
    source: PromptSource, rule: AttentionRule, match_top: int, drop_factors: Tensor | None
) -> StackInput:
    """Ask a source for all of its fresh prompts, in the order in which a pass of its own would."""
    blocks = enumerate(source.plan)
    fresh = {(block, name): source.fresh(block, name) for block, plan in blocks for name in plan.fresh}
    return StackInput(source, fresh, rule, match_top, drop_factors)


def stacked_forward(
    vit: VisionTransformer, tokens: Tensor, parts: Sequence[StackInput], memo: PromptMemo | None = None
) -> list[PassOutput]:
    """Run all blocks on the image tokens (R x B, N, D) of R runs and return an output for each of them.

    The parts must agree in plan, rule and ``match_top``. ``memo`` is as in ``prompted_forward``.
    """
    output = prompted_forward(
        vit,
        tokens,
        _Together(parts),
        parts[0].rule,
        match_top=parts[0].match_top,
        drop_factors=_joined_factors(parts),
        memo=memo,
    )
    images = len(tokens) // len(parts)
    return [_share(output, slice(start, start + images)) for start in range(0, len(tokens), images)]


@dataclass(frozen=True)
class _Together:
    """The prompts of all runs, run after run."""

    parts: Sequence[StackInput]

    @property
    def plan(self) -> tuple[BlockPlan, ...]:
        return self.parts[0].source.plan

    def fresh(self, block: int, name: str) -> Tensor:
        return torch.cat([part.fresh[block, name] for part in self.parts])

    def guided(self, block: int, name: str, glimpse: Glimpse) -> Tensor:
        tokens, scores = (seen.chunk(len(self.parts)) for seen in (glimpse.tokens, glimpse.scores))
        own = zip(self.parts, map(Glimpse, tokens, scores), strict=True)
        return torch.cat([part.source.guided(block, name, seen) for part, seen in own])


def _joined_factors(parts: Sequence[StackInput]) -> Tensor | None:
    factors = [part.drop_factors for part in parts if part.drop_factors is not None]
    return torch.cat(factors, dim=2) if factors else None


def _share(output: PassOutput, run: slice) -> PassOutput:
    rest = (None if tokens is None else tokens[run] for tokens in (output.selected, output.prompts))
    return PassOutput(output.cls[run], *rest)
