"""Devices by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shipbench.errors import InputError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> torch.device:
    """Return the device called ``auto`` (CUDA if available, else the CPU), ``cpu``, ``cuda`` or ``cuda:i``.

    Raises ``InputError`` for a malformed name, and for a CUDA device that this machine does not have.
    """
    import torch

    check_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device


def check_device_name(name: str) -> None:
    """Raise ``InputError`` for a malformed device name; the device itself need not exist."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", name):
        raise InputError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:0")


def devices_for_workers(device: torch.device, jobs: int) -> list[str]:
    """Return a device name for each of ``jobs`` workers: all CUDA devices in turn for ``cuda``, else ``device``."""
    if str(device) == "cuda":
        import torch

        return [f"cuda:{index % torch.cuda.device_count()}" for index in range(jobs)]
    return [str(device)] * jobs
