"""Changes of a backbone's weights, by timm's names."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shipbench.backbones import classifiers_of
from shipbench.errors import InputError

# What timm has in place of a fused qkv (Eva), and of fc1 (SwiGLU).
_APART = {"qkv": ("q_proj", "k_proj", "v_proj"), "fc1": ("fc1_g", "fc1_x")}
# VOLO adds half of the largest logits that this classifier computes for any patch.
_OF_PATCHES = "aux_head"


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


def with_head(weights: dict[str, Tensor], head: nn.Linear, backbone: nn.Module) -> dict[str, Tensor]:
    """Return ``weights`` and those of ``head`` in the classifier that timm gives to ``backbone``, detached.

    Two classifiers of a distilled model get the same weights: it averages what they compute. A norm in front of a
    classifier is a new one, which divides by sqrt(1 + eps), and the classifier's weight undoes this. A classifier of
    single patches gets zeros.
    Raises ``InputError`` for a classifier of other layers.
    """
    layers = _new_layers(backbone, head.out_features, weights)
    gains = {_parent(name): (1 + layer.eps) ** 0.5 for name, layer in layers.items() if _is_norm(layer)}
    named = {}
    for name, layer in layers.items():
        values = layer.state_dict() if _is_norm(layer) else _as_classifier(name, layer, head, gains)
        named.update({f"{name}.{key}": value.clone() for key, value in values.items()})
    return {name: value.detach() for name, value in (weights | named).items()}


def _new_layers(backbone: nn.Module, classes: int, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the layers of a new classifier of a timm model, by name: those whose tensors ``weights`` lacks."""
    # Shares the tensors, because a classifier is replaced and not changed.
    whole: Any = copy.deepcopy(backbone, {id(tensor): tensor for tensor in _tensors(backbone)})
    # RepViT averages two classifiers, or has one.
    distilled = getattr(getattr(backbone, "head", None), "distillation", None)
    with torch.random.fork_rng(devices=[]):
        whole.reset_classifier(classes, **({} if distilled is None else {"distillation": distilled}))
    leaves = {name: module for name, module in whole.named_modules() if not any(module.children())}
    return {
        name: module
        for name, module in leaves.items()
        if not all(f"{name}.{key}" in weights for key in module.state_dict())
    }


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _as_classifier(name: str, layer: Any, head: nn.Linear, gains: Mapping[str, float]) -> dict[str, Tensor]:
    """Return weight and bias of ``head`` for a layer of a classifier, a linear one or a 1 x 1 convolution."""
    fits = isinstance(layer, (nn.Linear, nn.Conv2d)) and layer.bias is not None
    if not fits or layer.weight.flatten(1).shape != head.weight.shape:
        raise InputError(
            f"the model cannot be merged: timm's classifier has {name}, which is not a linear layer on all features; "
            "export it without --merged"
        )
    if name == _OF_PATCHES:
        return {"weight": torch.zeros_like(layer.weight), "bias": torch.zeros_like(layer.bias)}
    return {"weight": head.weight.reshape(layer.weight.shape) * gains.get(_parent(name), 1.0), "bias": head.bias}


def _is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm1d)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


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
