"""Devices by name."""

from __future__ import annotations

import platform
import re
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from shipbench.errors import DeviceLostError, InputError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> torch.device:
    """Return the device called ``auto`` (CUDA, else MPS, else the CPU), ``cpu``, ``mps``, ``cuda`` or ``cuda:i``.

    Raises ``InputError`` for a malformed name, and for a device that this machine does not have.
    """
    check_device_name(name)
    if name == "mps":
        _require_mps()
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        devices = ", ".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        raise InputError(f"device {name!r} is not available: this machine has {devices or 'no CUDA device'}")
    return device


def device_name(device: torch.device) -> str:
    """Return the kind of a device, on CUDA with the GPU's name, which equal GPUs share: ``cuda: NVIDIA H200``."""
    if device.type != "cuda":
        return device.type
    import torch

    return f"cuda: {torch.cuda.get_device_name(device)}"


def check_device_name(name: str) -> None:
    """Raise ``InputError`` for a malformed device name; the device itself need not exist."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", name):
        raise InputError(f"unknown device {name!r}; choose auto, cpu, mps, cuda or cuda:0")


def require_usable(name: str) -> None:
    """Raise ``DeviceLostError`` if ``name`` is a CUDA device that fails every operation of this process.

    That is so after an illegal access, for one, and if the device is gone. A device that is only full passes, as do
    devices of all other kinds.
    """
    device = str(resolve_device(name)) if name == "auto" else name
    if not device.startswith("cuda"):
        return
    try:
        _probe(device)
    except Exception as error:
        if "out of memory" not in str(error):
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DeviceLostError(f"device {device} of {platform.node()} does not work ({reason})") from error


def as_current(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which a CUDA device is the current one of this thread; other devices have no such context.

    Leaving a stream of another device than the current one sets up both, and each takes hundreds of megabytes for that.
    """
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _probe(name: str) -> None:
    """Compute something on a CUDA device and wait for the result."""
    import torch

    torch.zeros(1, device=name)
    torch.cuda.synchronize(name)


def _has_mps() -> bool:
    """Return whether this is a Mac whose GPU torch can use; imports torch on a Mac only."""
    if platform.system() != "Darwin":
        return False
    import torch

    return torch.backends.mps.is_available()


def _require_mps() -> None:
    if not _has_mps():
        raise InputError(
            "device 'mps' is not available: it is the GPU of a Mac with Apple silicon and macOS 14 or later, under a "
            "torch that is built for it; choose auto or cpu"
        )


def devices_for_workers(device: torch.device, jobs: int) -> list[str]:
    """Return a device name for each of ``jobs`` workers: all CUDA devices in turn for ``cuda``, else ``device``."""
    if str(device) == "cuda":
        import torch

        return [f"cuda:{index % torch.cuda.device_count()}" for index in range(jobs)]
    return [str(device)] * jobs
