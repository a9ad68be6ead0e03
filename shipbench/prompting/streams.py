"""Prompt streams: tokens carried from block to block, computed once for all images that share a state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from timm.models.vision_transformer import Block
from torch import Tensor

from shipbench.prompting.attention import merge_and_project, per_image, project_kv
from shipbench.prompting.branch_factors import BranchFactors
from shipbench.prompting.owners import Owner


@dataclass(frozen=True)
class Stream:
    """Prompt tokens (S, K, D) in S states.

    A ``private`` stream has one state per image (S = B). Otherwise ``owner`` maps images to states; if it is None,
    B / S consecutive images share each state: S = 1 for a single run, S = R for R stacked runs.
    """

    name: str
    tokens: Tensor
    private: bool = False
    owner: Owner | None = None

    def spread(self, values: tuple[Tensor, ...], batch: int, chosen: Tensor | None = None) -> list[Tensor]:
        """Turn each of several per-state ``values`` (S, ...) into per-image ones.

        They are for all B = ``batch`` images, or for the ``chosen`` ones. Values that these images share in equal,
        consecutive groups are returned unchanged.
        """
        if self.owner is not None:
            return self.owner.spread(values, chosen)
        if chosen is None or len(self.tokens) == 1:
            return list(values)
        return [per_image(each, batch).index_select(0, chosen) for each in values]

    def add(self, branch: Tensor, factors: BranchFactors | None) -> Stream:
        """Add a residual branch (S, K, D), splitting a state if some of its images may drop the branch."""
        if factors is None:
            return replace(self, tokens=self.tokens + branch)
        if self.private:
            return replace(self, tokens=factors.add(self.tokens, branch))
        tokens, owner = factors.add_to_states(self.tokens, branch, self.owner)
        return Stream(self.name, tokens, private=owner is None, owner=owner)


@dataclass(frozen=True)
class Advanced:
    """A stream in one block: its keys and values (S, H, K, d), and its output, None unless it was advanced."""

    stream: Stream
    key: Tensor
    value: Tensor
    output: Stream | None


@dataclass(frozen=True)
class PromptMemo:
    """Shared streams already advanced, by block and name, for the batches of one evaluation.

    They are valid for equal parameters and precision, and without stochastic depth.
    """

    advanced: dict[tuple[int, str], Advanced] = field(default_factory=dict)


def advance(
    block: Block,
    stream: Stream,
    survives: bool,
    attention_factors: BranchFactors | None,
    mlp_factors: BranchFactors | None,
) -> Advanced:
    """Advance a stream through a block in which prompts do not attend: their attention output is LN1(prompt).

    For a stream that does not survive the block, compute only keys and values.
    """
    normed = block.norm1(stream.tokens)
    key, value = project_kv(block.attn, normed)
    output = None
    if survives:
        attended = stream.add(block.ls1(merge_and_project(block.attn, normed)), attention_factors)
        output = attended.add(block.ls2(block.mlp(block.norm2(attended.tokens))), mlp_factors)
    return Advanced(stream, key, value, output)


def join(advanced: list[Advanced], batch: int, chosen: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
    """Concatenate the keys and values of all streams for the images of a batch, or for the ``chosen`` ones.

    ``chosen`` (B',) are indices on the CPU. Returns (S, H, P, d) if the images share S states in equal, consecutive
    groups, otherwise (B, H, P, d) or (B', H, P, d); None without streams.
    """
    pairs = [a.stream.spread((a.key, a.value), batch, chosen) for a in advanced]
    if len(pairs) < 2:
        return (pairs[0][0], pairs[0][1]) if pairs else None
    counts = {key.shape[0] for key, _ in pairs}
    images = batch if chosen is None else len(chosen)
    size = images if len(counts) > 1 else counts.pop()
    keys, values = zip(*((per_image(key, size), per_image(value, size)) for key, value in pairs), strict=True)
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)
