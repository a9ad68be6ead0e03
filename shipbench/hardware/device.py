"""Which device a run uses and how exactly it computes there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shipbench.errors import InputError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:i``; raises ``InputError`` if there is none."""
    import torch

    require_known_device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device


def require_known_device(name: str) -> None:
    """Raise ``InputError`` for a device name that is malformed."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", name):
        raise InputError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:0")


def devices_for_workers(device: torch.device, jobs: int) -> list[str]:
    """Return one device name for each of ``jobs`` workers: every CUDA device in turn, or the CPU for all."""
    if str(device) == "cuda":
        import torch

        return [f"cuda:{index % torch.cuda.device_count()}" for index in range(jobs)]
    return [str(device)] * jobs
