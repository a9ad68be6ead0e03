"""Prompt streams: tokens carried from block to block, computed once for all images that share a state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor

from shipbench.prompting.architectures import scale_attention, scale_mlp
from shipbench.prompting.attention import (
    KeyValue,
    keys_and_values,
    merge_and_project,
    per_image,
    project_kv_rows,
)
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
    """A stream in one block: its keys and values side by side (S, K, 2 D), and its output, None unless it survives."""

    stream: Stream
    kv: Tensor
    output: Stream | None = None


@dataclass(frozen=True)
class PromptMemo:
    """Shared streams already advanced, by block and name, for the batches of one evaluation.

    They are valid for equal parameters and precision, and without stochastic depth.
    """

    blocks: dict[int, dict[str, Advanced]] = field(default_factory=dict)

    def of_block(self, block: int) -> dict[str, Advanced]:
        """Return the streams of a block that were kept, by name."""
        return self.blocks.get(block, {})

    def keep(self, block: int, advanced: list[Advanced]) -> None:
        """Keep streams of a block that all images share."""
        self.blocks.setdefault(block, {}).update({a.stream.name: a for a in advanced})


def advance(
    block: Block,
    survivors: list[Stream],
    others: list[Stream],
    attention_factors: BranchFactors | None,
    mlp_factors: BranchFactors | None,
) -> list[Advanced]:
    """Advance streams through a block in which prompts do not attend: their attention output is LN1(prompt).

    Of the ``others``, which do not survive the block, only keys and values are computed. The rows of all streams share
    every matrix product.
    """
    streams = survivors + others
    normed = block.norm1(_rows([stream.tokens for stream in streams]))
    kv = _divide(project_kv_rows(block.attn, normed), streams)
    if not survivors:
        return [Advanced(stream, each) for stream, each in zip(streams, kv, strict=True)]
    kept = normed if not others else normed[: sum(_count(stream) for stream in survivors)]
    branches = _divide(scale_attention(block, merge_and_project(block.attn, kept)), survivors)
    attended = [s.add(branch, attention_factors) for s, branch in zip(survivors, branches, strict=True)]
    rows = _rows([stream.tokens for stream in attended])
    branches = _divide(scale_mlp(block, block.mlp(block.norm2(rows))), attended)
    outputs = [s.add(branch, mlp_factors) for s, branch in zip(attended, branches, strict=True)]
    results = [*outputs, *[None] * len(others)]
    return [Advanced(stream, each, output) for stream, each, output in zip(streams, kv, results, strict=True)]


def join(attention: Attention, advanced: list[Advanced], batch: int, chosen: Tensor | None = None) -> KeyValue | None:
    """Concatenate the keys and values of all streams for the images of a batch, or for the ``chosen`` ones.

    ``chosen`` (B',) are indices on the CPU. Returns keys and values (S, H, P, d) if the images share S states in equal,
    consecutive groups, otherwise (B, H, P, d) or (B', H, P, d); None without streams.
    """
    if not advanced:
        return None
    parts = [part for a in advanced for part in a.stream.spread((a.kv,), batch, chosen)]
    states = [part.shape[0] for part in parts]
    images = batch if chosen is None else len(chosen)
    size = states[0] if all(count == states[0] for count in states) else images
    rows = parts[0] if len(parts) == 1 else torch.cat([per_image(part, size) for part in parts], dim=1)
    return keys_and_values(attention, rows)


def _rows(tokens: list[Tensor]) -> Tensor:
    """Return the rows (R, D) of all ``tokens`` (S, K, D), one after another."""
    flat = [each.flatten(0, 1) for each in tokens]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def _divide(rows: Tensor, streams: list[Stream]) -> list[Tensor]:
    """Return the ``rows`` (R, D') of each stream, (S, K, D')."""
    parts = (rows,) if len(streams) == 1 else rows.split([_count(stream) for stream in streams])
    return [part.unflatten(0, stream.tokens.shape[:2]) for part, stream in zip(parts, streams, strict=True)]


def _count(stream: Stream) -> int:
    """Return the number of rows S K of a stream."""
    # torch.export keeps this product variable in the number of images, but not ``Size.numel``.
    states, length, _ = stream.tokens.shape
    return states * length
