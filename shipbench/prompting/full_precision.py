"""Parts of a pass that keep at least float32 precision under autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# Determined at import, because torch 2.8 cannot trace the query into a graph.
_AUTOCAST_DEVICES = frozenset(
    kind for kind in ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla") if torch.amp.is_autocast_available(kind)
)
# Operations are counted on the meta device, where nothing is computed, as they would be on a GPU.
_STAND_INS = {"meta": "cuda"}


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context that disables autocast on ``device``: results keep the precision of their operands."""
    kind = _STAND_INS.get(device.type, device.type)
    return torch.autocast(kind, enabled=False) if kind in _AUTOCAST_DEVICES else nullcontext()


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a 16-bit tensor in float32, and any wider tensor unchanged."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor
