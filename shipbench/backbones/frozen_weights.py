"""Frozen weights in the precision in which a run computes."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn

from shipbench.hardware.precision import ComputeContext

_PLAIN = {layer.forward for layer in (nn.Linear, nn.Conv1d, nn.Conv2d)}


@runtime_checkable
class ReadsFrozenWeights(Protocol):
    """A model that computes with the values of frozen weights and not only through their layers, as DoRA's norms do."""

    reads_frozen_weights: Literal[True]


def cast_frozen_weights(model: nn.Module, compute: ComputeContext) -> None:
    """In bf16, replace the frozen fp32 weights and biases of linear and convolutional layers by bf16 ones.

    Autocast would cast them to the same values at every use, forward and backward, and keep the results for the
    backward pass. So losses and gradients stay the same bit by bit, as long as the model computes under autocast only.
    Trained tensors, norms and embeddings stay in fp32. The parameters are replaced, not changed: other modules that
    hold the same tensors keep them, and so do layers whose class has another ``forward``, such as convolutions that
    standardise their weights. Call it after everything that reads the frozen weights in fp32, such as features;
    models that read them at every step (``ReadsFrozenWeights``) keep theirs.
    """
    if compute.precision != "bf16" or isinstance(model, ReadsFrozenWeights):
        return
    cast: dict[nn.Parameter, nn.Parameter] = {}
    for layer in model.modules():
        if type(layer).forward in _PLAIN:
            for name, weight in list(layer.named_parameters(recurse=False)):
                if not weight.requires_grad and weight.dtype == torch.float32:
                    cast.setdefault(weight, nn.Parameter(weight.detach().bfloat16(), requires_grad=False))
                    layer.register_parameter(name, cast[weight])
