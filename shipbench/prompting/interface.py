"""How a prompt-tuning method describes itself to the forward pass: where prompts enter, and how tokens attend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from shipbench.prompting.static import take_tokens


@dataclass(frozen=True)
class BlockPlan:
    """The names of the prompt streams in one block.

    ``carried`` streams are outputs of the previous block. ``fresh`` streams enter at this block and do not depend on
    the images. ``guided`` streams enter at this block with tokens that depend on each image through a ``Glimpse`` of
    the previous block. A stream missing from all three has ended. ``added`` names are no streams: their tokens
    (1, N, D), or (1, 1, D), are added to the image tokens that enter the block.
    """

    carried: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    guided: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    @property
    def streams(self) -> tuple[str, ...]:
        """All streams of the block."""
        return self.carried + self.fresh + self.guided


@dataclass(frozen=True)
class LastRows:
    """The rows of the last block that a method reads beside CLS: all image tokens, all prompt tokens, or neither."""

    image: bool = False
    prompts: bool = False


@dataclass(frozen=True)
class AttentionRule:
    """How image and prompt tokens attend.

    Decoupled (SHIP): image queries mix two softmaxes, with weight ``1 - scale`` over the image and ``scale`` over the
    prompts; prompt tokens attend in the last block only (``prompts_attend = "last"``) or in every block (``"all"``).
    Coupled (VPT): every query attends to image and prompt tokens in one softmax. A trained ``scale`` is a tensor
    without axes, or (B, 1, 1, 1) if images of several runs are together.
    """

    coupled: bool = False
    scale: float | Tensor = 0.1
    prompts_attend: str = "last"

    def prompts_attend_in(self, block: int, depth: int) -> bool:
        """Return whether prompt tokens act as queries in ``block``, counted from 0, of ``depth`` blocks."""
        return self.coupled or self.prompts_attend == "all" or block == depth - 1

    def of_images(self, chosen: Tensor | None) -> AttentionRule:
        """Return the rule for the ``chosen`` images (B',) of a batch, or for all of them."""
        if chosen is None or not isinstance(self.scale, Tensor) or not self.scale.ndim:
            return self
        return replace(self, scale=self.scale.index_select(0, chosen))


@dataclass(frozen=True)
class Glimpse:
    """The output of the previous block that guides a stream.

    ``tokens`` (B, N, D) are the image tokens, before any norm. ``scores`` (B, N) are the block's CLS attention logits
    before the softmax, averaged over heads, without gradient.
    """

    tokens: Tensor
    scores: Tensor

    def top(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the indices (B, count) of the highest scores, in descending order, and their tokens (B, count, D)."""
        indices = self.scores.topk(count, dim=1).indices
        return indices, take_tokens(self.tokens, indices)


class PromptSource(Protocol):
    """The prompt tokens of a method, block by block."""

    @property
    def plan(self) -> tuple[BlockPlan, ...]:
        """One plan per block of the backbone."""
        ...

    def fresh(self, block: int, name: str) -> Tensor:
        """Return the tokens of a fresh stream of ``block``: (B, K, D), or (1, K, D) if all images share them.

        Tokens to be added to the image tokens are (B, N, D), (1, N, D) or (1, 1, D).

        With (S, K, D), B / S consecutive images share each state; see ``shipbench.prompting.stacked``.
        """
        ...

    def guided(self, block: int, name: str, glimpse: Glimpse) -> Tensor:
        """Return the tokens (B, K, D) of a guided stream of ``block``, given a glimpse of the previous block."""
        ...
