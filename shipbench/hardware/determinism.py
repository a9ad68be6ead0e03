"""Seeds, deterministic kernels, and numbers that do not depend on what the calling program sets in torch."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from shipbench.errors import InputError

if TYPE_CHECKING:
    import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
# The values with which cuBLAS adds in a fixed order; the first is faster.
_FIXED_WORKSPACES = (":4096:8", ":16:8")


class _Turn(threading.local):
    """The lock of ``undisturbed``, and in how many of its blocks, one within another, this thread is."""

    # torch's generators and settings belong to the process, so its threads take turns.
    lock = threading.RLock()
    blocks = 0


_TURN = _Turn()


def _renew_lock() -> None:
    # The thread that holds it does not exist in a forked process, and would never release it.
    _Turn.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def fix_workspace() -> None:
    """Ask cuBLAS for workspaces of a fixed size, with which its results repeat; without importing torch.

    Has no effect if the environment asks for others, or after CUDA has been initialised, when cuBLAS has them already.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        os.environ.setdefault(_WORKSPACE, _FIXED_WORKSPACES[0])


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed torch and fix its kernels, so that a run repeats exactly on the same device.

    Raises ``InputError`` as ``fix_kernels`` does.
    """
    import torch

    fix_kernels(device)
    torch.manual_seed(seed)


def fix_kernels(device: torch.device) -> None:
    """Require deterministic kernels and full fp32, with which every run trains and every evaluation scores it.

    On CUDA, operations without a deterministic kernel then raise an error; on MPS, torch only warns of them. Matrix
    products and convolutions in fp32 do not use TF32, nor bf16 on a CPU, and no kernel is chosen by its time. Raises
    ``InputError`` if cuBLAS has workspaces with which its results do not repeat.
    """
    import torch

    if device.type == "cuda":
        _require_fixed_workspace()
    _require_full_fp32()
    _require_usual_kernels()
    if device.type in ("cuda", "mps"):
        # On CUDA with warn_only, the backward pass of fused attention would still add in an arbitrary order.
        torch.use_deterministic_algorithms(True, warn_only=device.type == "mps")
        # Deterministic mode also fills uninitialised memory, which nothing here reads; this would only cost time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def any_kernel() -> Iterator[None]:
    """Allow operations without a deterministic kernel in the block, whose result must not depend on it."""
    import torch

    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)


def _require_full_fp32() -> None:
    import torch

    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # Since torch 2.9, operations without a precision of their own take that of their library or of all libraries.
    for library in (torch.backends.cudnn, torch.backends.mkldnn):
        for name in ("matmul", "conv", "rnn"):
            operation = getattr(library, name, None)
            if operation is not None:
                operation.fp32_precision = "ieee"


def _require_usual_kernels() -> None:
    import torch

    # With it, cuDNN times its kernels and takes another one on another day.
    torch.backends.cudnn.benchmark = False
    # The kernels of attention among which torch chooses by shape, on a CPU too.
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.backends.cuda.enable_math_sdp(True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Execute the block with gradients, and with torch's own default type and device, whatever the caller has set.

    Other threads of this process wait at the entry of their blocks meanwhile. Raises ``InputError`` in a block of
    ``torch.autocast``, whose casts of trained weights would outlive the steps that change them.
    """
    import torch

    with _TURN.lock, torch.inference_mode(False), torch.enable_grad(), _usual_device():
        if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda", "mps")):
            raise InputError(
                "torch.autocast is on, which would change the numbers of a run; start the run outside of its block, "
                "and choose the precision by RunSpec(precision=...)"
            )
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        _TURN.blocks += 1
        try:
            yield
        finally:
            _TURN.blocks -= 1
            torch.set_default_dtype(default)


def has_turn() -> bool:
    """Return whether this thread is in a block of ``undisturbed``, so that no other thread is."""
    return _TURN.blocks > 0


def _usual_device() -> AbstractContextManager[object]:
    """Return a context in which new tensors are on the CPU; torch slows down in one that is not necessary."""
    import torch

    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def uses_tf32(device: torch.device) -> bool:
    """Return whether matrix products or convolutions in fp32 may use TF32 on a device."""
    import torch

    return device.type == "cuda" and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)


def _require_fixed_workspace() -> None:
    value = os.environ.get(_WORKSPACE)
    if value in _FIXED_WORKSPACES:
        return
    if value is None:
        raise InputError(
            "CUDA was initialised before shipbench was imported, so results would not repeat; restart Python and "
            f"import shipbench first, or set {_WORKSPACE}={_FIXED_WORKSPACES[0]} before Python starts"
        )
    raise InputError(
        f"{_WORKSPACE}={value} lets results differ from run to run; unset it or set it to {_FIXED_WORKSPACES[0]}"
    )
