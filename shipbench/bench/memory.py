"""What a training step needs to remember."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor, nn

from shipbench.device import PeakMemory
from shipbench.training.loop import Arithmetic


def step_bytes(step: Callable[[], object], arithmetic: Arithmetic) -> int:
    """Return the memory that one step adds to what was in use before it: allocated on CUDA, resident on the CPU."""
    gc.collect()
    arithmetic.wait()
    if arithmetic.device.type == "cuda":
        before = torch.cuda.memory_allocated(arithmetic.device)
    else:
        before = PeakMemory(arithmetic.device).bytes()
    peak = PeakMemory(arithmetic.device)
    step()
    return max(0, peak.bytes() - before)


def tensor_bytes(model: nn.Module, step: Callable[[], object]) -> int:
    """Return the bytes of a model's weights and of the tensors that a step keeps for its backward pass.

    Every storage counts once, whole. No allocator has a part in it, so that the count is the same each time and on
    every device with the same kernels; gradients and the optimiser's state are not in it.
    """
    storages = {storage.data_ptr(): storage for storage in map(Tensor.untyped_storage, model.state_dict().values())}

    def keep(tensor: Tensor) -> Tensor:
        # Held until the step is over, or another tensor could be given the same address.
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storage.nbytes() for storage in storages.values())
