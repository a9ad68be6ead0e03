"""What must not be rounded to bf16, although a pass under autocast rounds nearly everything to it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which products are as precise as their factors, also under autocast."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor of 16 bits in float32, and any other as it is."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor
