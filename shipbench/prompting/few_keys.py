"""softmax(q k^T / sqrt(d)) v for few keys, which images share, written out for a CPU.

The fewer the keys, and the fewer images share them, the less time this takes than fused attention. It goes through the
images part by part, so that what a part makes of its products is still in the processor's cache. Shapes: H heads of
width d; queries (B, H, T, d); keys and values (S, H, P, d), which the images see in S equal and consecutive shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Probabilities in one part: 4 MB in fp32.
_CACHED = 1 << 20


def attend_to_few(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, (B, H, T, d)."""
    out: Tensor = _FewKeys.apply(query, key, value)
    return out


class _FewKeys(torch.autograd.Function):
    """The equation and its gradient, which computes the probabilities again, as fused attention does."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        out = torch.empty_like(query)
        for part in _parts(query, key):
            chance = _probabilities(part.of_images(query), part.of_states(key))
            part.write(torch.bmm(chance, part.of_states(value)), out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors
        # The queries of the first block depend on nothing that is trained.
        grad_query = torch.empty_like(query) if ctx.needs_input_grad[0] else None
        grad_key, grad_value = key.new_zeros(key.shape), value.new_zeros(value.shape)
        scale = query.shape[-1] ** -0.5
        for part in _parts(query, key):
            queries, keys, upstream = part.of_images(query), part.of_states(key), part.of_images(grad)
            chance = _probabilities(queries, keys)
            _add_product(part.of_states(grad_value), chance.transpose(1, 2), upstream)
            # From here on, the gradient of the probabilities is made into that of the products, in place.
            slope = torch.bmm(upstream, part.of_states(value).transpose(1, 2))
            torch.ops.aten._softmax_backward_data(slope, chance, -1, slope.dtype, grad_input=slope)
            if grad_query is not None:
                part.write(_scaled_product(slope, keys, scale), grad_query)
            _add_product(part.of_states(grad_key), slope.transpose(1, 2), queries, scale)
        return grad_query, grad_key, grad_value


@dataclass(frozen=True)
class _Part:
    """Consecutive states, and consecutive images that see them in equal shares."""

    images: slice
    states: slice

    def of_images(self, values: Tensor) -> Tensor:
        """Return what (B, H, T, d) has of this part, as (heads of all states, rows of all images of a state, d)."""
        return self._by_state(values[self.images]).flatten(2, 3).flatten(0, 1)

    def of_states(self, values: Tensor) -> Tensor:
        """Return what (S, H, P, d) has of this part: (heads of all states, P, d)."""
        return values[self.states].flatten(0, 1)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Write ``rows``, laid out as ``of_images`` returns them, where they belong in ``out`` (B, H, T, d)."""
        target = self._by_state(out[self.images])
        target.copy_(rows.view(target.shape))

    def _by_state(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (self.states.stop - self.states.start, -1)).transpose(1, 2)


def _parts(query: Tensor, key: Tensor) -> Iterator[_Part]:
    """Divide the images: either all images of several states, or some of one state."""
    share = len(query) // len(key)
    images = max(1, _CACHED // (query[0, ..., 0].numel() * key.shape[2]))
    if images < share:
        for start in range(0, len(query), share):
            for first in range(start, start + share, images):
                yield _Part(slice(first, min(first + images, start + share)), slice(start // share, start // share + 1))
        return
    states = images // share
    for first in range(0, len(key), states):
        end = min(first + states, len(key))
        yield _Part(slice(first * share, end * share), slice(first, end))


def _probabilities(query: Tensor, key: Tensor) -> Tensor:
    products = _scaled_product(query, key.transpose(1, 2), query.shape[-1] ** -0.5)
    return torch.softmax(products, dim=-1, out=products)


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Return scale * left right, with the scale applied by the matrix product itself."""
    out = left.new_empty(left.shape[0], left.shape[1], right.shape[2])
    # In this form, not as a method of ``out``, torch counts its compute.
    return torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)


def _add_product(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """Add scale * left right to ``total`` in place."""
    torch.baddbmm(total, left, right, alpha=scale, out=total)
