"""Peak memory, free memory, and memory that is kept."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory(device: torch.device) -> None:
    """Ask glibc to keep freed memory for the tensors that come next; on a GPU and elsewhere nothing happens.

    A step frees and allocates the same large tensors again and again. By default the system takes back every one of
    32 MB and more, and hands out and clears each page anew: up to a sixth of the time of a pass of ViT-B/16.
    """
    if device.type == "cpu" and (mallopt := _of_glibc("mallopt")):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """Return a function of glibc, or None on a system without."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
    return found


class PeakMemory:
    """The highest memory use of this process on a device since the object was made, in bytes.

    Memory that was freed before, and that the allocator has kept, does not count.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            import torch

            # Statistics of a device that nothing has used yet are an error.
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats(device)
        else:
            if malloc_trim := _of_glibc("malloc_trim"):
                malloc_trim(0)
            _reset_resident_peak()

    def bytes(self) -> int:
        """Return allocated device memory on CUDA, resident memory of the process on the CPU."""
        if self.device.type == "cuda":
            import torch

            return torch.cuda.max_memory_allocated(self.device)
        return _resident_peak()


def _reset_resident_peak() -> None:
    """Ask Linux to forget the peak; elsewhere the peak is that of the whole process."""
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


def available_memory() -> float:
    """Return the bytes that new processes may use: what is free on the machine, within the limit of a container."""
    found = [_free_memory()]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(path).read_text().strip() if Path(path).exists() else ""
        found += [float(text)] if text.isdecimal() else []
    return min(found)


def _free_memory() -> float:
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    for line in lines:
        if line.startswith("MemAvailable"):
            return float(line.split()[1]) * 1024
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):
        return float("inf")
