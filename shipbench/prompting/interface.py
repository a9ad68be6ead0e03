"""What a prompt-tuning method tells the forward pass: which prompts are where, and how tokens attend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class BlockPlan:
    """The prompt streams of one block, by name.

    ``carried`` streams are the previous block's outputs; ``fresh`` ones enter here without a look at the images;
    ``guided`` ones enter with tokens that depend on each image through a ``Glimpse`` of the previous block.
    A stream that is in none of them has ended.
    """

    carried: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    guided: tuple[str, ...] = ()

    @property
    def streams(self) -> tuple[str, ...]:
        """All streams of the block."""
        return self.carried + self.fresh + self.guided


@dataclass(frozen=True)
class AttentionRule:
    """How image and prompt tokens attend.

    Decoupled: image queries mix two softmaxes, ``(1 - scale)`` over the image and ``scale`` over the prompts, and
    prompt tokens attend only in the last block (``prompts_attend = "last"``) or in all of them. Coupled: one
    softmax over everything for every query, as in VPT.
    """

    coupled: bool = False
    scale: float = 0.1
    prompts_attend: str = "last"

    def prompts_attend_in(self, block: int, depth: int) -> bool:
        """Return whether prompt tokens have queries of their own in ``block`` of ``depth``."""
        return self.coupled or self.prompts_attend == "all" or block == depth - 1


@dataclass(frozen=True)
class Glimpse:
    """The previous block as a guided stream sees it.

    ``tokens`` (B, N, D): its output image tokens, before any norm. ``scores`` (B, N): its CLS attention logits,
    before the softmax, averaged over heads; without gradient.
    """

    tokens: Tensor
    scores: Tensor

    def top(self, count: int) -> tuple[Tensor, Tensor]:
        """Return indices (B, count) of the highest scores in descending order, and their tokens (B, count, D)."""
        indices = self.scores.topk(count, dim=1).indices
        return indices, take_tokens(self.tokens, indices)


class PromptSource(Protocol):
    """Where prompt tokens come from."""

    @property
    def plan(self) -> tuple[BlockPlan, ...]:
        """One plan for each block."""
        ...

    def fresh(self, block: int, name: str) -> Tensor:
        """Return tokens of a stream that enters ``block``: (B, K, D), or (1, K, D), the same for all images.

        (S, K, D) are seen by the images in S equal and consecutive shares; see ``shipbench.prompting.stacked``.
        """
        ...

    def guided(self, block: int, name: str, glimpse: Glimpse) -> Tensor:
        """Return tokens (B, K, D) of a stream that enters ``block``, from what it sees of the previous one."""
        ...


def take_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """Gather ``tokens`` (B, N, D) at ``indices`` (B, R) along the token axis: (B, R, D)."""
    images, length, _ = tokens.shape
    rows = indices + length * torch.arange(images, device=indices.device).unsqueeze(1)
    # The gradient adds whole rows; that of gather adds single numbers, each with an index of its own.
    return tokens.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, indices.shape)
