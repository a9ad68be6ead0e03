"""Changes of a backbone's weights, by timm's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from shipbench.backbones import classifiers_of
from shipbench.errors import InputError


def backbone_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a timm model's weights by its names, without a classifier."""
    classifiers = tuple(f"{name}." for name in classifiers_of(model))
    state = model.state_dict()
    return {name: value.detach().clone() for name, value in state.items() if not name.startswith(classifiers)}


def with_head(weights: dict[str, Tensor], head: nn.Linear, classifiers: Sequence[str] = ("head",)) -> dict[str, Tensor]:
    """Return ``weights`` and those of ``head`` as each of the ``classifiers`` of a timm model, detached.

    A distilled model averages what its two classifiers compute, as a run does with the features.
    """
    named = {f"{each}.{name}": value.clone() for each in classifiers for name, value in head.state_dict().items()}
    return {name: value.detach() for name, value in (weights | named).items()}


def weight_of(weights: Mapping[str, Tensor], part: str) -> Tensor:
    """Return the weight of ``part``, as in ``blocks.0.attn.qkv``; raise ``InputError`` if the backbone has none."""
    if f"{part}.weight" not in weights:
        raise InputError(f"the merged model needs a weight in {part}, which this backbone does not have")
    return weights[f"{part}.weight"]


def add_to_weight(weights: dict[str, Tensor], part: str, value: Tensor) -> None:
    """Add ``value`` to the weight of ``part``, as in ``blocks.0.attn.qkv``.

    Raises ``InputError`` if the backbone has no weight there.
    """
    weights[f"{part}.weight"] = weight_of(weights, part) + value


def add_to_bias(weights: dict[str, Tensor], part: str, value: Tensor) -> None:
    """Add ``value`` to the bias of ``part``, as in ``blocks.0.attn.qkv``.

    Raises ``InputError`` if the backbone has no bias there.
    """
    name = f"{part}.bias"
    if name not in weights:
        raise InputError(f"the merged model needs a bias in {part}, which this backbone does not have")
    weights[name] = weights[name] + value


def scale_rows(weights: dict[str, Tensor], part: str, scale: Tensor) -> None:
    """Multiply every output channel of ``part`` by ``scale`` (out,): the rows of its weight, and its bias.

    Raises ``InputError`` if the backbone has no weight there.
    """
    weight = weight_of(weights, part)
    weights[f"{part}.weight"] = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    scales = {f"{part}.bias": scale}
    if part.endswith(".qkv"):
        # Eva holds the biases of queries and values apart from the fused layer; that of its keys is zero.
        attention = part.removesuffix("qkv")
        scales[f"{attention}q_bias"], _, scales[f"{attention}v_bias"] = scale.chunk(3)
    for name in scales.keys() & weights.keys():
        weights[name] = weights[name] * scales[name]
