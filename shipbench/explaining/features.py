"""The final features of a run's test images: what its head reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shipbench.errors import InputError
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import as_frozen_features
from shipbench.prompting import evaluating
from shipbench.training.inputs import Inputs
from shipbench.training.micro_batches import MicroBatches, in_micro_batches, inference_batch

_HEADS = ("head", "readout.head")


@torch.no_grad()
def final_features(model: nn.Module, inputs: Inputs, compute: ComputeContext, title: str) -> Tensor:
    """Return the features (images, D), float32 on the CPU, that the head of ``model`` reads, by images in order.

    ``title`` names the model in messages. Raises ``InputError`` for a model without a head of that name that it calls.
    """
    model.eval()
    micro_batches = MicroBatches(inference_batch(compute.device), "the final features")
    frozen = as_frozen_features(model)
    if frozen is not None:

        def of_readout(images: Tensor) -> Tensor:
            with compute.autocast():
                return frozen.features(images).float()

        return in_micro_batches(inputs, micro_batches, of_readout)
    modules = dict(model.named_modules())
    head = next((modules[name] for name in _HEADS if name in modules), None)
    if head is None:
        raise InputError(f"{title} has no module called {' or '.join(_HEADS)} whose input could be stored")
    read: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0]))

    def features(images: Tensor) -> Tensor:
        read.clear()
        with compute.autocast():
            model(images)
        if not read:
            raise InputError(f"{title} computes without calling its head, so what the head reads cannot be stored")
        return read[-1].float()

    try:
        with evaluating(model):
            return in_micro_batches(inputs, micro_batches, features)
    finally:
        handle.remove()
