"""Changes of a backbone's weights, by timm's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from shipbench.backbones import classifiers_of
from shipbench.errors import InputError

# What timm has in place of a fused qkv (Eva), and of fc1 (SwiGLU).
_APART = {"qkv": ("q_proj", "k_proj", "v_proj"), "fc1": ("fc1_g", "fc1_x")}


class _Weights(dict[str, Tensor]):
    """Weights by timm's names, of which ``InputError`` is raised for one that the backbone does not have."""

    def __missing__(self, name: str) -> Tensor:
        layer, _, kind = name.rpartition(".")
        raise InputError(f"the merged model needs a {kind} in {layer}, which this backbone does not have")


def backbone_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a timm model's weights by its names, without a classifier.

    Looking up a name that is not among them raises ``InputError``.
    """
    classifiers = tuple(f"{name}." for name in classifiers_of(model))
    state = model.state_dict()
    kept = {name: value.detach().clone() for name, value in state.items() if not name.startswith(classifiers)}
    return _Weights(kept)


def with_head(weights: dict[str, Tensor], head: nn.Linear, classifiers: Sequence[str] = ("head",)) -> dict[str, Tensor]:
    """Return ``weights`` and those of ``head`` as each of the ``classifiers`` of a timm model, detached.

    A distilled model averages what its two classifiers compute, as a run does with the features.
    """
    named = {f"{each}.{name}": value.clone() for each in classifiers for name, value in head.state_dict().items()}
    return {name: value.detach() for name, value in (weights | named).items()}


def weight_of(weights: Mapping[str, Tensor], part: str) -> Tensor:
    """Return the weight of ``part``, as in ``blocks.0.attn.qkv``; raise ``InputError`` if the backbone has none.

    Where timm has q, k and v apart, or the two layers of ``SwiGLU`` in place of fc1, this is all of their rows.
    """
    return torch.cat([weights[f"{layer}.weight"] for layer in _layers(weights, part)])


def add_to_weight(weights: dict[str, Tensor], part: str, value: Tensor) -> None:
    """Add ``value`` to the weight of ``part``, as in ``blocks.0.attn.qkv``.

    Raises ``InputError`` if the backbone has no weight there.
    """
    _add(weights, part, value, "weight")


def add_to_bias(weights: dict[str, Tensor], part: str, value: Tensor) -> None:
    """Add ``value`` to the bias of ``part``, as in ``blocks.0.attn.qkv``.

    Raises ``InputError`` if the backbone has no bias there.
    """
    _add(weights, part, value, "bias")


def scale_rows(weights: dict[str, Tensor], part: str, scale: Tensor) -> None:
    """Multiply every output channel of ``part`` by ``scale`` (out,): the rows of its weight, and its bias.

    Raises ``InputError`` if the backbone has no weight there.
    """
    layers = _layers(weights, part)
    scales: dict[str, Tensor] = {}
    for layer, share in zip(layers, scale.chunk(len(layers)), strict=True):
        weight = weights[f"{layer}.weight"]
        weights[f"{layer}.weight"] = weight * share.view(-1, *[1] * (weight.ndim - 1))
        scales[f"{layer}.bias"] = share
    if part.endswith(".qkv"):
        # Eva holds the biases of queries and values apart from the fused layer; that of its keys is zero.
        attention = part.removesuffix("qkv")
        scales[f"{attention}q_bias"], _, scales[f"{attention}v_bias"] = scale.chunk(3)
    for name in scales.keys() & weights.keys():
        weights[name] = weights[name] * scales[name]


def _add(weights: dict[str, Tensor], part: str, value: Tensor, kind: str) -> None:
    layers = _layers(weights, part)
    for layer, share in zip(layers, value.chunk(len(layers)), strict=True):
        weights[f"{layer}.{kind}"] = weights[f"{layer}.{kind}"] + share


def _layers(weights: Mapping[str, Tensor], part: str) -> tuple[str, ...]:
    """Return the layers of timm whose rows are those of ``part``, in this order."""
    start, _, name = part.rpartition(".")
    apart = tuple(f"{start}.{layer}" for layer in _APART.get(name, ()))
    return apart if apart and f"{apart[0]}.weight" in weights else (part,)
