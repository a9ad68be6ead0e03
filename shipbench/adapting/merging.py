"""Changes of a backbone's weights, by timm's names."""

from __future__ import annotations

from torch import Tensor

from shipbench.errors import InputError


def add_to_bias(weights: dict[str, Tensor], part: str, value: Tensor) -> None:
    """Add ``value`` to the bias of ``part``, as in ``blocks.0.attn.qkv``.

    Raises ``InputError`` if the backbone has no bias there.
    """
    name = f"{part}.bias"
    if name not in weights:
        raise InputError(f"the merged model needs a bias in {part}, which this backbone does not have")
    weights[name] = weights[name] + value


def scale_rows(weights: dict[str, Tensor], part: str, scale: Tensor) -> None:
    """Multiply every output channel of ``part`` by ``scale`` (out,): the rows of its weight, and its bias."""
    weight = weights[f"{part}.weight"]
    weights[f"{part}.weight"] = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    if f"{part}.bias" in weights:
        weights[f"{part}.bias"] = weights[f"{part}.bias"] * scale
