"""Seeds and deterministic kernels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed torch and require deterministic kernels, so that a run repeats exactly on the same device.

    On a GPU, operations without a deterministic kernel then raise an error, and fp32 convolutions do not use TF32.
    """
    import torch

    torch.manual_seed(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # With warn_only, the backward pass of fused attention would still add in an arbitrary order.
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.allow_tf32 = False
        # Deterministic mode also fills uninitialised memory, which nothing here reads; this would only cost time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
