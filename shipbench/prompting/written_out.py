"""Attention on a CPU, written out as matrix products.

It is faster than fused attention for few keys that images share, and for images and prompts to which queries attend
apart, since both read the same rows. Images are processed in chunks whose probabilities stay in the processor's
cache. Operands in bf16 are kept for the backward pass as they are; every chunk is computed in fp32, and the result is
rounded once. Shapes: H heads of width d; queries (B, H, T, d); keys and values (S, H, P, d), each state shared by B / S
consecutive images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_Pair = tuple[Tensor, Tensor]

# Probabilities in one chunk: 4 MB in fp32.
_CHUNK_SIZE = 1 << 20


def attend_in_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, (B, H, T, d)."""
    out: Tensor = _Alone.apply(query, key, value)
    return out


def attend_with_gradient_in_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what fused attention returns, (B, H, T, d); its gradient is that of ``attend_in_products``."""
    out: Tensor = _FusedAlone.apply(query, key, value)
    return out


def attend_apart_in_products(query: Tensor, image: _Pair, prompts: _Pair, scale: float) -> Tensor:
    """Return (1 - s) softmax(q k_i^T / sqrt(d)) v_i + s softmax(q k_p^T / sqrt(d)) v_p, (B, H, T, d), s = ``scale``.

    Each image has keys and values k_i and v_i of its own, and images may share k_p and v_p of the prompts.
    """
    out: Tensor = _Apart.apply(query, *image, *prompts, scale)
    return out


class _Alone(torch.autograd.Function):
    """One attention, and its gradient, which recomputes the probabilities, as fused attention does."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        return _weighted_sum(query, _groups(query, (1.0,), (key, value)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, *states = ctx.saved_tensors
        return _gradients(query, (1.0,), states, grad, ctx.needs_input_grad)


class _FusedAlone(_Alone):
    """The same, but for the forward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        return F.scaled_dot_product_attention(query, key, value)


class _Apart(torch.autograd.Function):
    """The weighted sum of two attentions, and its gradient."""

    # The compiler follows no variable number of arguments.
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, of_prompts: Tensor, values: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, of_prompts, values)
        ctx.weights = 1 - scale, scale
        return _weighted_sum(query, _groups(query, ctx.weights, (key, value, of_prompts, values)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, *states = ctx.saved_tensors
        return *_gradients(query, ctx.weights, states, grad, ctx.needs_input_grad), None


def _weighted_sum(query: Tensor, groups: Sequence[_Group]) -> Tensor:
    """Return the sum of all groups' attentions, (B, H, T, d), each with the weight of its group."""
    out = torch.empty_like(query)
    for chunk in _chunks(query, groups):
        queries = chunk.of_images(query)
        total = torch.empty_like(queries)
        for group in groups:
            probabilities = _probabilities(group.merged(queries), group.part(group.key, chunk))
            values, first = group.part(group.value, chunk), group is groups[0]
            _add_product(group.merged(total), probabilities, values, group.weight, first=first)
        chunk.write(total, out)
    return out


def _gradients(
    query: Tensor, weights: Sequence[float], states: Sequence[Tensor], grad: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``query`` and of all ``states``, given that of the output.

    Those that are not ``needed`` are None: no trained tensor reaches queries, keys and values of the first block's
    images.
    """
    groups = _groups(query, weights, states)
    of_query, of_states = needed[0], needed[1 : 1 + len(states)]
    grad_query = torch.empty_like(query) if of_query else None
    of_group = [any(pair) for pair in zip(of_states[::2], of_states[1::2], strict=True)]
    of_groups = [group.empty_gradients() if need else None for group, need in zip(groups, of_group, strict=True)]
    for chunk in _chunks(query, groups):
        to_query = _chunk_gradients(chunk, query, groups, grad, of_query, of_groups)
        if grad_query is not None and to_query is not None:
            chunk.write(to_query, grad_query)
    grads = [part for pair in of_groups for part in pair or (None, None)]
    return grad_query, *(g if g is None else g.to(of.dtype) for g, of in zip(grads, states, strict=True))


def _chunk_gradients(
    chunk: _Chunk,
    query: Tensor,
    groups: Sequence[_Group],
    grad: Tensor,
    of_query: bool,
    of_groups: Sequence[_Pair | None],
) -> Tensor | None:
    """Return the gradient of a chunk's queries, if it is needed, and add to those of keys and values."""
    queries, upstream = chunk.of_images(query), chunk.of_images(grad)
    to_query = torch.empty_like(queries) if of_query else None
    scale = query.shape[-1] ** -0.5
    for group, of_group in zip(groups, of_groups, strict=True):
        if to_query is None and of_group is None:
            continue
        rows, above = group.merged(queries), group.merged(upstream)
        keys, values = group.part(group.key, chunk), group.part(group.value, chunk)
        probabilities = _probabilities(rows, keys)
        # The gradient of the probabilities becomes that of the scores in place.
        slope = _scaled_product(above, values.transpose(1, 2), group.weight)
        if of_group is not None:
            group.add(of_group[1], chunk, probabilities.transpose(1, 2), above, group.weight)
        torch.ops.aten._softmax_backward_data(slope, probabilities, -1, slope.dtype, grad_input=slope)
        if of_group is not None:
            group.add(of_group[0], chunk, slope.transpose(1, 2), rows, scale)
        if to_query is not None:
            _add_product(group.merged(to_query), slope, keys, scale, first=group is groups[0])
    return to_query


@dataclass(frozen=True)
class _Group:
    """Keys and values whose probabilities add up to 1, and the weight of the sum that they give.

    If ``own``, each image has a state of its own; otherwise, the states of all such groups are equal in number. In a
    chunk, rows of images are (states, H, images per state, T, d), and a batch of matrices is (states x H, images per
    state x T, d), or (states x H x images per state, T, d) with ``own`` states.
    """

    key: Tensor
    value: Tensor
    weight: float
    own: bool

    def merged(self, rows: Tensor) -> Tensor:
        """Return rows of images as a batch of matrices."""
        return rows.flatten(0, 2) if self.own else rows.flatten(2, 3).flatten(0, 1)

    def part(self, states: Tensor, chunk: _Chunk) -> Tensor:
        """Return what belongs to a chunk of keys or values as a batch of matrices (..., P, d)."""
        return self.merged(chunk.of_images(states)) if self.own else _widened(states[chunk.states]).flatten(0, 1)

    def empty_gradients(self) -> _Pair:
        """Return tensors to which ``add`` can add the gradients of keys and values."""
        key, value = self.key, self.value
        if self.own:
            return torch.empty_like(key), torch.empty_like(value)
        # Contiguous, so that parts of them are views to which a product can be added.
        return key.new_zeros(key.shape, dtype=_wide(key)), value.new_zeros(value.shape, dtype=_wide(value))

    def add(self, grads: Tensor, chunk: _Chunk, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
        """Add scale * left right, a batch of matrices, to what belongs to a chunk of ``grads``."""
        if self.own:
            chunk.write(_scaled_product(left, right, scale), grads)
        else:
            _add_product(grads[chunk.states].flatten(0, 1), left, right, scale)


@dataclass(frozen=True)
class _Chunk:
    """A range of states, and the range of images that share them."""

    images: slice
    states: slice

    def of_images(self, values: Tensor) -> Tensor:
        """Return the chunk of (B, H, T, d) as (states, H, images per state, T, d)."""
        return _widened(self._by_state(values[self.images]))

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Write ``rows``, in the order of ``of_images``, to this chunk of ``out`` (B, H, T, d)."""
        target = self._by_state(out[self.images])
        target.copy_(rows.view(target.shape))

    def _by_state(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (self.states.stop - self.states.start, -1)).transpose(1, 2)


def _groups(query: Tensor, weights: Sequence[float], states: Sequence[Tensor]) -> list[_Group]:
    pairs = zip(weights, states[::2], states[1::2], strict=True)
    return [_Group(key, value, weight, own=len(key) == len(query)) for weight, key, value in pairs]


def _chunks(query: Tensor, groups: Sequence[_Group]) -> Iterator[_Chunk]:
    """Divide the images into chunks: all images of several states, or some images of one state."""
    if not len(query):
        return
    count = min(len(group.key) for group in groups)
    per_state = len(query) // count
    heads, rows, width = query.shape[1:]
    if any(group.own for group in groups):
        # The copies of an image's keys and values take more than the probabilities of a few queries.
        rows = max(rows, width)
    images = max(1, _CHUNK_SIZE // (heads * rows * max(group.key.shape[2] for group in groups)))
    if images < per_state:
        for state in range(count):
            start, end = state * per_state, (state + 1) * per_state
            for first in range(start, end, images):
                yield _Chunk(slice(first, min(first + images, end)), slice(state, state + 1))
        return
    states = images // per_state
    for first in range(0, count, states):
        end = min(first + states, count)
        yield _Chunk(slice(first * per_state, end * per_state), slice(first, end))


def _widened(values: Tensor) -> Tensor:
    """Return values in float32 or wider and contiguous, by at most one copy."""
    # Without the format, a cast would keep the layout, and merging dimensions would copy once more.
    return values.to(_wide(values), memory_format=torch.contiguous_format).contiguous()


def _wide(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _probabilities(query: Tensor, key: Tensor) -> Tensor:
    scores = _scaled_product(query, key.transpose(1, 2), query.shape[-1] ** -0.5)
    return torch.softmax(scores, dim=-1, out=scores)


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Return scale * left right; the matrix product itself applies the scale."""
    out = left.new_empty(left.shape[0], left.shape[1], right.shape[2])
    _add_product(out, left, right, scale, first=True)
    return out


def _add_product(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0, *, first: bool = False) -> None:
    """Add scale * left right to ``total`` in place, or write it if it is the ``first``."""
    # torch's FLOP counter sees this form, but not the method of ``total``; autocast leaves it alone.
    torch.baddbmm(total, left, right, beta=0 if first else 1, alpha=scale, out=total)
