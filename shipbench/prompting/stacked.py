"""One forward pass for a stack of runs that share the frozen backbone, each with its own prompts and images.

The images of R runs are concatenated run by run, R x B in all. Images see only the prompts of their own run and never
each other, so outputs and gradients equal those of separate passes up to the rounding of larger matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.prompting.attention import per_image
from shipbench.prompting.forward import PassOutput, prompted_forward
from shipbench.prompting.interface import AttentionRule, BlockPlan, Glimpse, LastRows, PromptSource
from shipbench.prompting.stochastic_depth import DropFactors
from shipbench.prompting.streams import PromptMemo


@dataclass(frozen=True)
class StackInput:
    """The input of one run to a stacked pass, with all its random numbers drawn.

    ``fresh`` holds the fresh prompt tokens of ``source`` by block and stream name. ``rule``, ``match_top``,
    ``drop_factors`` and ``rows`` are arguments of ``prompted_forward``.
    """

    source: PromptSource
    fresh: Mapping[tuple[int, str], Tensor]
    rule: AttentionRule
    match_top: int
    drop_factors: DropFactors | Tensor | None
    rows: LastRows


def draw_stack_input(
    source: PromptSource,
    rule: AttentionRule,
    match_top: int,
    drop_factors: DropFactors | Tensor | None,
    rows: LastRows | None = None,
) -> StackInput:
    """Draw all fresh prompts of ``source``, in the order in which ``prompted_forward`` would draw them."""
    blocks = enumerate(source.plan)
    fresh = {(block, name): source.fresh(block, name) for block, plan in blocks for name in plan.fresh + plan.added}
    return StackInput(source, fresh, rule, match_top, drop_factors, rows or LastRows())


def stacked_forward(
    vit: VisionTransformer, tokens: Tensor, inputs: Sequence[StackInput], memo: PromptMemo | None = None
) -> list[PassOutput]:
    """Run all blocks on the image tokens (R x B, N, D) of R runs and return one output per run.

    All ``inputs`` must have the same plan, ``match_top``, ``rows`` and rule; a trained scale of the rule may differ.
    ``memo`` is that of ``prompted_forward``.
    """
    output = prompted_forward(
        vit,
        tokens,
        _StackedSource(inputs),
        _joined_rule(inputs, len(tokens)),
        match_top=inputs[0].match_top,
        rows=inputs[0].rows,
        drop_factors=_joined_factors(inputs),
        memo=memo,
    )
    images = len(tokens) // len(inputs)
    return [_output_of(output, slice(start, start + images)) for start in range(0, len(tokens), images)]


@dataclass(frozen=True)
class _StackedSource:
    """The prompts of all runs, concatenated run by run."""

    inputs: Sequence[StackInput]

    @property
    def plan(self) -> tuple[BlockPlan, ...]:
        return self.inputs[0].source.plan

    def fresh(self, block: int, name: str) -> Tensor:
        return torch.cat([run.fresh[block, name] for run in self.inputs])

    def guided(self, block: int, name: str, glimpse: Glimpse) -> Tensor:
        tokens, scores = (values.chunk(len(self.inputs)) for values in (glimpse.tokens, glimpse.scores))
        glimpses = map(Glimpse, tokens, scores)
        guided = [run.source.guided(block, name, view) for run, view in zip(self.inputs, glimpses, strict=True)]
        return torch.cat(guided)


def _joined_rule(inputs: Sequence[StackInput], images: int) -> AttentionRule:
    """Return the rule of all runs; each image has the trained scale of its run."""
    scales = [run.rule.scale for run in inputs if isinstance(run.rule.scale, Tensor)]
    if not scales:
        return inputs[0].rule
    return replace(inputs[0].rule, scale=per_image(torch.stack(scales).view(-1, 1, 1, 1), images))


def _joined_factors(inputs: Sequence[StackInput]) -> DropFactors | None:
    factors = [run.drop_factors for run in inputs if run.drop_factors is not None]
    parts = [DropFactors.of(part) if isinstance(part, Tensor) else part for part in factors]
    return DropFactors.joined(parts) if parts else None


def _output_of(output: PassOutput, run: slice) -> PassOutput:
    rest = (None if tokens is None else tokens[run] for tokens in (output.selected, output.prompts, output.image))
    return PassOutput(output.cls[run], *rest)
