"""softmax(q k^T / sqrt(d)) v on a CPU for a few keys that images share, written out as matrix products.

It is faster than fused attention for few keys, and the more so the fewer images share them. Images are processed in
chunks whose probabilities stay in the processor's cache. Operands in bf16 are kept for the backward pass as they are;
every chunk is computed in fp32, and the result is rounded once. Shapes: H heads of width d; queries (B, H, T, d); keys
and values (S, H, P, d), each state shared by B / S consecutive images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shipbench.prompting.full_precision import at_least_float32, full_precision

# Probabilities in one chunk: 4 MB in fp32.
_CHUNK_SIZE = 1 << 20


def attend_to_few(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, (B, H, T, d)."""
    out: Tensor = _FewKeys.apply(query, key, value)
    return out


class _FewKeys(torch.autograd.Function):
    """The equation and its gradient, which recomputes the probabilities, as fused attention does."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        out = torch.empty_like(query)
        with full_precision(query.device):
            for chunk in _chunks(query, key):
                probabilities = _probabilities(chunk.of_images(query), chunk.of_states(key))
                chunk.write(torch.bmm(probabilities, chunk.of_states(value)), out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        # A caller may compute gradients under autocast, too.
        with full_precision(grad.device):
            query, key, value = ctx.saved_tensors
            return _gradients(query, key, value, grad, of_query=ctx.needs_input_grad[0])


def _gradients(
    query: Tensor, key: Tensor, value: Tensor, grad: Tensor, *, of_query: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the gradients of ``query``, ``key`` and ``value``, given that of the output."""
    # No trained tensor reaches the queries of the first block.
    grad_query = torch.empty_like(query) if of_query else None
    grad_key, grad_value = (_zero_gradient(states) for states in (key, value))
    scale = query.shape[-1] ** -0.5
    for chunk in _chunks(query, key):
        queries, keys, upstream = chunk.of_images(query), chunk.of_states(key), chunk.of_images(grad)
        probabilities = _probabilities(queries, keys)
        _add_product(chunk.of_states(grad_value), probabilities.transpose(1, 2), upstream)
        # The gradient of the probabilities becomes that of the scores in place.
        slope = torch.bmm(upstream, chunk.of_states(value).transpose(1, 2))
        torch.ops.aten._softmax_backward_data(slope, probabilities, -1, slope.dtype, grad_input=slope)
        if grad_query is not None:
            chunk.write(_scaled_product(slope, keys, scale), grad_query)
        _add_product(chunk.of_states(grad_key), slope.transpose(1, 2), queries, scale)
    return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype)


@dataclass(frozen=True)
class _Chunk:
    """A range of states, and the range of images that share them."""

    images: slice
    states: slice

    def of_images(self, values: Tensor) -> Tensor:
        """Return the chunk of (B, H, T, d) as (states x H, images per state x T, d)."""
        return _widened(self._by_state(values[self.images])).flatten(2, 3).flatten(0, 1)

    def of_states(self, values: Tensor) -> Tensor:
        """Return the chunk of (S, H, P, d) as (states x H, P, d)."""
        return _widened(values[self.states]).flatten(0, 1)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Write ``rows``, in the layout of ``of_images``, to this chunk of ``out`` (B, H, T, d)."""
        target = self._by_state(out[self.images])
        target.copy_(rows.view(target.shape))

    def _by_state(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (self.states.stop - self.states.start, -1)).transpose(1, 2)


def _widened(values: Tensor) -> Tensor:
    """Return 16-bit values in float32 and contiguous, by one copy; wider ones unchanged."""
    # at_least_float32 would keep the layout, and merging dimensions would copy once more.
    return values.to(torch.promote_types(values.dtype, torch.float32), memory_format=torch.contiguous_format)


def _zero_gradient(states: Tensor) -> Tensor:
    """Return a contiguous zero in float32 or wider; chunks of it are views, whatever the layout of ``states``."""
    return at_least_float32(states.new_zeros(states.shape))


def _chunks(query: Tensor, key: Tensor) -> Iterator[_Chunk]:
    """Divide the images into chunks: all images of several states, or some images of one state."""
    per_state = len(query) // len(key)
    images = max(1, _CHUNK_SIZE // (query[0, ..., 0].numel() * key.shape[2]))
    if images < per_state:
        for state in range(len(key)):
            start, end = state * per_state, (state + 1) * per_state
            for first in range(start, end, images):
                yield _Chunk(slice(first, min(first + images, end)), slice(state, state + 1))
        return
    states = images // per_state
    for first in range(0, len(key), states):
        end = min(first + states, len(key))
        yield _Chunk(slice(first * per_state, end * per_state), slice(first, end))


def _probabilities(query: Tensor, key: Tensor) -> Tensor:
    scores = _scaled_product(query, key.transpose(1, 2), query.shape[-1] ** -0.5)
    return torch.softmax(scores, dim=-1, out=scores)


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Return scale * left right; the matrix product itself applies the scale."""
    out = left.new_empty(left.shape[0], left.shape[1], right.shape[2])
    # torch's FLOP counter sees this form, but not the method of ``out``.
    return torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)


def _add_product(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """Add scale * left right to ``total`` in place."""
    torch.baddbmm(total, left, right, alpha=scale, out=total)
