"""Which precision a run computes in."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from shipbench.errors import InputError
from shipbench.hardware.device import require_known_device, resolve_device

if TYPE_CHECKING:
    import torch


_PRECISIONS = ("auto", "fp32", "bf16")


# Since this release, Linux lists every instruction set with bf16 that torch looks for.
_LISTS_BF16 = (5, 16)


def resolve_precision(name: str, device: torch.device) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` is bf16 where the device has instructions for it.

    Raises ``InputError`` for any other name.
    """
    if name not in _PRECISIONS:
        raise InputError(f"unknown precision {name!r}; choose auto, fp32 or bf16")
    if name != "auto":
        return name
    return "bf16" if _has_bf16(device) else "fp32"


def precision_on(device: str, precision: str) -> str:
    """Return ``resolve_precision`` on ``resolve_device``, without importing torch where there is no doubt.

    A plan needs no more than this of a device, and torch takes seconds to import. Raises ``InputError`` as they do.
    """
    on_cpu = device == "cpu" or (device == "auto" and _has_no_gpu())
    if on_cpu and precision in _PRECISIONS and (precision != "auto" or _has_no_bf16()):
        return "fp32" if precision == "auto" else precision
    return resolve_precision(precision, resolve_device(device))


def precision_elsewhere(device: str, precision: str) -> str:
    """Return the precision of a run on another machine, whose device need not be here.

    It is part of what the run is, so that ``auto`` means here what it would mean for a run on this machine. Raises
    ``InputError`` for unknown names, and for ``auto`` where that cannot be known.
    """
    require_known_device(device)
    if precision != "auto":
        return precision_on("cpu", precision)
    try:
        return precision_on(device, precision)
    except InputError as error:
        raise InputError(f"{error}; say which precision its workers are to use: --precision fp32 or bf16") from error


@cache
def _has_no_gpu() -> bool:
    """Say whether torch cannot find a GPU: NVIDIA's through the driver's library, AMD's through its device."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


@cache
def _has_no_bf16() -> bool:
    """Say whether the CPU cannot have instructions for bf16, as far as the system lists what it has."""
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if sys.platform != "linux" or platform.machine() != "x86_64" or release is None:
        return False
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return False
    if flags is None or (int(release[1]), int(release[2])) < _LISTS_BF16:
        return False
    return not {"avx512_bf16", "amx_tile"} & set(flags[1].split())


def _has_bf16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True)
class ComputeContext:
    """Where and how exactly a model is computed."""

    device: torch.device
    precision: str

    def autocast(self) -> torch.autocast:
        """Return the mixed-precision context, inactive in fp32."""
        import torch

        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def wait(self) -> None:
        """Wait for the device, so that a clock can be read."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
