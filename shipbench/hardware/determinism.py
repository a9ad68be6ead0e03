"""Seeds and deterministic kernels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed torch and ask for deterministic kernels, so that a run repeats exactly on the same device.

    An operation without one is then an error on a GPU. In fp32, convolutions are computed in fp32 as well.
    """
    import torch

    torch.manual_seed(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # A mere warning would leave the gradient of fused attention as it is, which adds in any order.
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.allow_tf32 = False
        # This mode also writes to all new memory, in case someone reads what nobody wrote; nobody does here.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
