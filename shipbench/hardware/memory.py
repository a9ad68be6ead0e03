"""Peak memory, available memory, and the allocator of the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
# Memory limits of a container, in cgroups version 2 and 1.
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def keep_freed_memory(device: torch.device) -> None:
    """Make glibc keep freed memory for later tensors; does nothing on a GPU or without glibc.

    Training steps free and allocate the same large tensors over and over. By default, the system takes back blocks of
    32 MB and more, and allocates and clears each page anew: up to a sixth of the time of a pass of ViT-B/16.
    """
    if device.type == "cpu" and (mallopt := _glibc_function("mallopt")):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


class PeakMemory:
    """The peak memory of this process on ``device`` since the object was created.

    Memory that was freed before, but that the allocator has kept, does not count.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            import torch

            # Resetting the statistics of an uninitialised device raises an error.
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "mps":
            import torch

            torch.mps.empty_cache()
        else:
            if malloc_trim := _glibc_function("malloc_trim"):
                malloc_trim(0)
            _reset_resident_peak()

    def bytes(self) -> int:
        """Return the peak in bytes.

        It is the allocated memory on CUDA, the resident memory of the process on the CPU, and on MPS, where torch
        counts no peak, what its allocator has taken from the driver and not given back.
        """
        import torch

        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if self.device.type == "mps":
            return torch.mps.driver_allocated_memory()
        return _resident_peak()


def available_memory() -> float:
    """Return the bytes that new processes may use: the machine's free memory, within the limit of a container."""
    return min(_listed_memory("MemAvailable"), _container_limit())


def total_memory() -> float:
    """Return the bytes of memory that this machine has, within the limit of a container."""
    return min(_listed_memory("MemTotal"), _container_limit())


def device_memory(device: torch.device) -> float:
    """Return the bytes of memory that a CUDA device has, whatever uses it now."""
    import torch

    return float(torch.cuda.get_device_properties(device).total_memory)


def _container_limit() -> float:
    texts = [Path(path).read_text().strip() for path in _CGROUP_LIMITS if Path(path).exists()]
    return min((float(text) for text in texts if text.isdecimal()), default=math.inf)


def free_memory(device: torch.device) -> float:
    """Return the bytes that new tensors on a device may take, those included that its allocator has kept."""
    import torch

    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return available_memory()


def _glibc_function(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
    return function


def _reset_resident_peak() -> None:
    """Reset the peak on Linux; elsewhere the peak counts from the start of the process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _resident_peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    import resource

    # macOS counts bytes here, other systems kilobytes.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if platform.system() == "Darwin" else used * 1024


def _listed_memory(name: str) -> float:
    """Return the bytes under ``name`` in Linux's list, elsewhere all physical memory."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    for line in lines:
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1024
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):
        return math.inf
