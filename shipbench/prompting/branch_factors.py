"""Residual branches under stochastic depth: tokens + factor * branch, for images and for shared prompt states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from timm.models.vision_transformer import Block
from torch import Tensor
from torch.autograd.function import once_differentiable

from shipbench.prompting import static
from shipbench.prompting.architectures import scale_mlp
from shipbench.prompting.owners import IndexedOwner, OneHotOwner, Owner
from shipbench.prompting.stochastic_depth import DropFactors

Branch = Callable[[Tensor, Tensor | None], Tensor]
"""A function of tokens (B', N, D) and the indices (B',) of their images, or of all tokens and None."""


class BranchFactors(Protocol):
    """The factors of one branch, each 0 or 1 / keep."""

    def add(self, tokens: Tensor, branch: Tensor) -> Tensor:
        """Return tokens + factor * branch, both (B, T, D) for B images."""
        ...

    def add_branch(self, tokens: Tensor, branch: Branch) -> Tensor:
        """Return tokens + factor * branch(tokens); the branch may be left out for images that drop it."""
        ...

    def add_to_states(self, tokens: Tensor, branch: Tensor, owner: Owner | None) -> tuple[Tensor, Owner | None]:
        """Add a branch to states (S, K, D), in S' states if some images of a state drop the branch.

        Without ``owner``, B / S consecutive images share each state. Returns (S', K, D) and their owner, which is None
        if each image has a state of its own.
        """
        ...


def add_scaled(tokens: Tensor, branch: Tensor, factors: BranchFactors | None) -> Tensor:
    """Return tokens + factor * branch, both (B, T, D), with factor 1 without ``factors``."""
    return tokens + branch if factors is None else factors.add(tokens, branch)


def add_branch(tokens: Tensor, branch: Branch, factors: BranchFactors | None) -> Tensor:
    """Return tokens + factor * branch(tokens), with factor 1 without ``factors``."""
    return tokens + branch(tokens, None) if factors is None else factors.add_branch(tokens, branch)


def add_mlp(block: Block, tokens: Tensor, factors: BranchFactors | None) -> Tensor:
    """Return the tokens (B, T, D) after the MLP branch of a block."""
    return add_branch(tokens, lambda rows, _: scale_mlp(block, block.mlp(block.norm2(rows))), factors)


def factors_of_blocks(
    factors: DropFactors | None, depth: int, device: torch.device
) -> list[tuple[BranchFactors | None, BranchFactors | None]]:
    """Return the factors of the attention and the MLP branch of every block, None where nothing is dropped."""
    if factors is None:
        return [(None, None)] * depth
    if not static.is_static(device):
        return [
            (None, None) if scale is None else (SkippingFactors(values[0]), SkippingFactors(values[1]))
            for values, scale in zip(factors.values, factors.scales, strict=True)
        ]
    sent = factors.to(device)
    kept = (sent.values != 0).long()
    return [
        (None, None) if scale is None else (StaticFactors(v[0], k[0], scale), StaticFactors(v[1], k[1], scale))
        for v, k, scale in zip(sent.values, kept, sent.scales, strict=True)
    ]


@dataclass(frozen=True)
class SkippingFactors:
    """Factors (B,) on the CPU, where a pass computes a branch only for what keeps it."""

    values: Tensor

    def add(self, tokens: Tensor, branch: Tensor) -> Tensor:
        """See ``BranchFactors``."""
        return torch.addcmul(tokens, _column(self.values, tokens), branch)

    def add_branch(self, tokens: Tensor, branch: Branch) -> Tensor:
        """Compute the branch only for images that keep it."""
        if bool((self.values != 0).all()):
            return self.add(tokens, branch(tokens, None))
        kept = self.values.nonzero().flatten()
        if len(kept) == 0:
            # One image, with the factor 0: prompts that only this branch reads get a gradient of zero instead of none.
            kept = kept.new_zeros(1)
        # The backward pass of index_select adds slices, several times faster than that of tokens[kept].
        added = branch(tokens.index_select(0, kept), kept)
        sums: Tensor = _AddToKept.apply(tokens, added, kept, self._scale)
        return sums

    def add_to_states(self, tokens: Tensor, branch: Tensor, owner: Owner | None) -> tuple[Tensor, Owner | None]:
        """Split only the states of which some images drop the branch and others keep it."""
        states = torch.arange(len(tokens)).repeat_interleave(len(self.values) // len(tokens))
        if owner is not None:
            (states,) = owner.spread((torch.arange(len(tokens)),))
        pairs, new_owner = (states * 2 + (self.values != 0)).unique(return_inverse=True)
        parent, factor = pairs // 2, (pairs % 2).to(self.values.dtype) * self._scale
        tokens, branch = (states.index_select(0, parent) for states in (tokens, branch))
        return torch.addcmul(tokens, _column(factor, tokens), branch), IndexedOwner(new_owner)

    @property
    def _scale(self) -> float:
        """The factor 1 / keep of the images that keep the branch."""
        return float(self.values.max())


class _AddToKept(torch.autograd.Function):
    """``tokens`` (B, ...) with scale * ``added`` (B', ...) at the indices ``kept`` (B',).

    The gradient of ``index_add`` reads only the shape of what is added, but keeps all of it for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, added: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale, ctx.dtype = scale, added.dtype
        return tokens.index_add(0, kept, added.to(tokens.dtype), alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        to_added = (grad.index_select(0, kept) * ctx.scale).to(ctx.dtype)
        return grad if ctx.needs_input_grad[0] else None, to_added, None, None


@dataclass(frozen=True)
class StaticFactors:
    """Factors (B,) on the device, where every pass has the same operations and shapes.

    ``kept`` (B,), long, is 1 for images that keep the branch, and ``scale`` is their factor.
    """

    values: Tensor
    kept: Tensor
    scale: float

    def add(self, tokens: Tensor, branch: Tensor) -> Tensor:
        """See ``BranchFactors``."""
        return torch.addcmul(tokens, _column(self.values, tokens), branch)

    def add_branch(self, tokens: Tensor, branch: Branch) -> Tensor:
        """Compute the branch for all images."""
        return self.add(tokens, branch(tokens, None))

    def add_to_states(self, tokens: Tensor, branch: Tensor, owner: Owner | None) -> tuple[Tensor, Owner | None]:
        """Double the states, or give each image a state of its own once there would be more states than images."""
        assert owner is None or isinstance(owner, OneHotOwner)
        runs = len(tokens) if owner is None else len(owner.indices)
        count, images = len(tokens) // runs, len(self.values) // runs
        if 2 * count > images:
            if owner is not None:
                tokens, branch = owner.spread((tokens, branch))
            return self.add(tokens, branch), None
        added = torch.add(tokens, branch, alpha=self.scale)
        both = torch.cat([states.unflatten(0, (runs, count)) for states in (tokens, added)], dim=1)
        kept = self.kept.unflatten(0, (runs, images))
        indices = kept if owner is None else torch.add(owner.indices, kept, alpha=count)
        return both.flatten(0, 1), OneHotOwner(indices, 2 * count)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Return factors (B,) as (B, 1, 1) in the type of ``like``."""
    return values.to(like.dtype).view(-1, 1, 1)
