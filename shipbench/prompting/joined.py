"""Image tokens and carried prompts in one tensor, for static passes.

Under stochastic depth, prompts that are carried through a few blocks have a state for nearly every image. As further
rows of the images, they share every norm, matrix product and residual branch with them, and a block launches hardly
more operations than without prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor

from shipbench.prompting import static
from shipbench.prompting.attention import (
    KeyValue,
    attend_decoupled,
    attend_jointly,
    cls_scores,
    merge_and_project,
    per_image,
    project_out,
    project_q,
    project_qkv,
    project_qkv_rows,
    queries_keys_and_values,
)
from shipbench.prompting.branch_factors import BranchFactors, add_mlp, add_scaled
from shipbench.prompting.interface import AttentionRule
from shipbench.prompting.streams import Advanced, Stream, advance, join

# Each image computes its own copy of joined prompts, so long ones cost more than the launches that they save.
_IMAGE_TOKENS_PER_PROMPT = 8


@dataclass(frozen=True)
class JoinedTokens:
    """``length`` image tokens, and behind them the ``guests`` of each image, prompts by name and number: (B, T, D)."""

    tokens: Tensor
    length: int
    guests: tuple[tuple[str, int], ...] = ()

    @property
    def image(self) -> Tensor:
        """The image tokens (B, N, D)."""
        return self.tokens[:, : self.length] if self.guests else self.tokens

    def add_to_image(self, values: Tensor) -> JoinedTokens:
        """Add values (B, N, D), or (1, 1, D), to the image tokens."""
        image = self.image + values
        tokens = torch.cat([image, self.tokens[:, self.length :]], dim=1) if self.guests else image
        return JoinedTokens(tokens, self.length, self.guests)

    def welcome(self, streams: list[Stream]) -> JoinedTokens:
        """Append fresh or guided streams as further guests."""
        if not streams:
            return self
        rows = [per_image(stream.tokens, self.tokens.shape[0]) for stream in streams]
        entering = tuple((stream.name, stream.tokens.shape[1]) for stream in streams)
        return JoinedTokens(torch.cat([self.tokens, *rows], dim=1), self.length, self.guests + entering)

    def keep(self, names: tuple[str, ...]) -> JoinedTokens:
        """Drop the guests that are not in ``names``."""
        guests = tuple(guest for guest in self.guests if guest[0] in names)
        if guests == self.guests:
            return self
        kept = self.guest_rows(self.tokens, names)
        return JoinedTokens(torch.cat([self.image, *kept], dim=1) if kept else self.image, self.length, guests)

    def guest_rows(self, rows: Tensor, names: tuple[str, ...]) -> list[Tensor]:
        """Return the parts (B, C', D) of ``rows`` (B, T, D) that belong to the guests in ``names``."""
        if all(name in names for name, _ in self.guests):
            return [rows[:, self.length :]] if self.guests else []
        parts = rows[:, self.length :].split([count for _, count in self.guests], dim=1)
        return [part for part, (name, _) in zip(parts, self.guests, strict=True) if name in names]

    def apart(self) -> tuple[Tensor, list[Stream]]:
        """Return the image tokens (B, N, D), and the guests as streams with one state per image."""
        if not self.guests:
            return self.tokens, []
        image, *parts = self.tokens.split([self.length, *(count for _, count in self.guests)], dim=1)
        named = zip(self.guests, parts, strict=True)
        return image, [Stream(name, part, private=True) for (name, _), part in named]


def joins(joined: JoinedTokens, surviving: list[Stream], factors: BranchFactors | None) -> bool:
    """Return whether ``surviving`` streams, and present guests, go through a block as rows of the images.

    They do in static passes under stochastic depth if they are at most an eighth of the image tokens. Streams in
    several states that images choose from do not.
    """
    if factors is None or not static.is_static(joined.tokens.device) or not (joined.guests or surviving):
        return False
    if any(stream.owner is not None for stream in surviving):
        return False
    guests = sum(count for _, count in joined.guests) + sum(stream.tokens.shape[1] for stream in surviving)
    return guests * _IMAGE_TOKENS_PER_PROMPT <= joined.length


def joined_block(
    block: Block,
    joined: JoinedTokens,
    streams: list[Stream],
    survivors: tuple[str, ...],
    factors: tuple[BranchFactors | None, BranchFactors | None],
    scale: float | Tensor,
    needs_scores: bool,
) -> tuple[JoinedTokens, Tensor | None]:
    """Run a block with decoupled attention in which prompts do not attend.

    ``streams`` enter at this block; those that survive it become guests. Returns the rows that survive, and the CLS
    scores (B, N) if needed.
    """
    attention = block.attn
    joined = joined.welcome([stream for stream in streams if stream.name in survivors])
    # One cast serves the projections and what is carried; autocast would cast again.
    normed = block.norm1(joined.tokens).to(attention.qkv.weight.dtype)
    rows = project_qkv_rows(attention, normed)
    image_rows, guest_rows = rows.split([joined.length, rows.shape[1] - joined.length], dim=1)
    query, *image = queries_keys_and_values(attention, image_rows)
    scores = cls_scores(attention, query[:, :, :1], image[0]) if needs_scores else None
    prompts = _prompt_keys(block, guest_rows, [stream for stream in streams if stream.name not in survivors])
    heads = attend_decoupled(query, (image[0], image[1]), prompts, scale).transpose(1, 2).flatten(2)
    # The attention output of a prompt that does not attend is its normalised token.
    carried = joined.guest_rows(normed, survivors)
    branch = block.ls1(merge_and_project(attention, torch.cat([heads, *carried], dim=1) if carried else heads))
    kept = joined.keep(survivors)
    tokens = add_mlp(block, add_scaled(kept.tokens, branch, factors[0]), factors[1])
    return JoinedTokens(tokens, kept.length, kept.guests), scores


def _prompt_keys(block: Block, guest_rows: Tensor, others: list[Stream]) -> KeyValue | None:
    """Return keys and values (B, H, P, d) of the guests, whose projections are (B, C, 3 D), and of other streams."""
    kv = guest_rows[..., guest_rows.shape[-1] // 3 :]
    guests = Advanced(Stream("guests", guest_rows, private=True), kv)
    rest = advance(block, [], others, None, None) if others else []
    return join(block.attn, [guests, *rest], guest_rows.shape[0])


def matched_rows(
    block: Block,
    tokens: Tensor,
    normed: Tensor,
    streams: list[Stream],
    image: KeyValue,
    factors: tuple[BranchFactors | None, BranchFactors | None],
    rule: AttentionRule,
    match_top: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return CLS (B, D), selected image tokens (B, k, D) and prompts (B, P, D) of the last block, computed together.

    ``tokens`` (B, N, D) and the ``streams`` enter the block; ``normed`` are the normalised tokens.
    """
    attention, batch = block.attn, tokens.shape[0]
    with torch.no_grad():
        scores = cls_scores(attention, project_q(attention, normed[:, :1]), image[0])
    # CLS, which is token 0, before the selected ones.
    chosen = static.take_tokens(tokens, F.pad(scores.topk(match_top, dim=1).indices, (1, 0)))
    spread = [per_image(states, batch) for stream in streams for states in stream.spread((stream.tokens,), batch)]
    rows = torch.cat([chosen, *spread], dim=1)
    query, key, value = project_qkv(attention, block.norm1(rows))
    prompts = key[:, :, match_top + 1 :], value[:, :, match_top + 1 :]
    if rule.coupled:
        heads = attend_jointly(query, image, prompts)
    else:
        of_image, of_prompts = query.split([match_top + 1, rows.shape[1] - match_top - 1], dim=2)
        mixed = attend_decoupled(of_image, image, prompts, rule.scale)
        heads = torch.cat([mixed, attend_jointly(of_prompts, image, prompts)], dim=2)
    rows = add_scaled(rows, block.ls1(project_out(attention, heads)), factors[0])
    cls, selected, prompt_rows = add_mlp(block, rows, factors[1]).split(
        [1, match_top, rows.shape[1] - match_top - 1], dim=1
    )
    return cls.squeeze(1), selected, prompt_rows
