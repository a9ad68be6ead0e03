"""Peak memory, available memory, and the allocator of the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
# Where Linux tells the memory of the machine, the cgroups of this process, and their limits.
_MEMINFO, _OWN_CGROUPS, _CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_STATUS = Path("/proc/self/status")
# In errors without a class of their own: the allocators of CPUs and of MPS, and CUDA outside of torch's allocator.
_LACKS_MEMORY = (
    "DefaultCPUAllocator",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


@dataclass(frozen=True)
class _MemoryFiles:
    """The files of a version of cgroups: below ``folder``, the limit, the use, and in memory.stat the page cache."""

    folder: Path
    limit: str
    used: str
    cached: tuple[str, ...]


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
        """Return the peak in bytes; 0 if it is unknown, as on a CPU under Windows.

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
    """Return the bytes that new processes may use: the machine's free memory, or less if a limit leaves less.

    Containers, SLURM and systemd limit the cgroups of this process.
    """
    left = (limit - _used(cgroup, files) for cgroup, files, limit in _limits())
    return max(0.0, min((_listed_memory("MemAvailable"), *left)))


def total_memory() -> float:
    """Return the bytes of memory that this machine has, within the limits of this process's cgroups."""
    return min((_listed_memory("MemTotal"), *(limit for _, _, limit in _limits())))


def device_memory(device: torch.device) -> float:
    """Return the bytes of memory that a CUDA device has, whatever uses it now."""
    import torch

    return float(torch.cuda.get_device_properties(device).total_memory)


def _limits() -> Iterator[tuple[Path, _MemoryFiles, float]]:
    """Yield every cgroup around this process that has a limit, from its own to the root, its files and the limit."""
    for files, path in _memberships():
        own = files.folder / path.lstrip("/")
        # A container may see its own cgroup as the root, while the path starts at the root of the host.
        for cgroup in (own, *own.parents):
            limit = _number(cgroup / files.limit)
            if limit is not None:
                yield cgroup, files, limit
            if cgroup == files.folder:
                break


def _memberships() -> Iterator[tuple[_MemoryFiles, str]]:
    """Yield the files of each version of cgroups with the path of this process's own cgroup, or at least the root."""
    second = _MemoryFiles(_CGROUPS, "memory.max", "memory.current", ("active_file", "inactive_file"))
    cached = ("total_active_file", "total_inactive_file")
    first = _MemoryFiles(_CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", cached)
    paths = {first: "/", second: "/"}
    for line in _lines(_OWN_CGROUPS):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths[second] = path
        elif "memory" in controllers.split(","):
            paths[first] = path
    yield from paths.items()


def _used(cgroup: Path, files: _MemoryFiles) -> float:
    """Return the bytes that a cgroup uses, without the page cache, which the kernel drops to make room."""
    used = _number(cgroup / files.used)
    if used is None:
        return 0.0
    counts = (line.split() for line in _lines(cgroup / "memory.stat"))
    return max(0.0, used - sum(float(count) for name, count in counts if name in files.cached))


def _number(file: Path) -> float | None:
    """Return the number in a file, or None if there is no file or, as without a limit, no number."""
    lines = _lines(file)
    return float(lines[0]) if lines and lines[0].isdecimal() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def lacks_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that a device or the machine has run out of memory."""
    import torch

    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(text in str(error) for text in _LACKS_MEMORY)


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
    # Sandboxes such as gVisor list no peak.
    peak = next((line for line in _lines(_STATUS) if line.startswith("VmHWM:")), None)
    if peak is not None:
        return int(peak.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        # Windows has no such module.
        return 0
    # macOS counts bytes here, other systems kilobytes.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if platform.system() == "Darwin" else used * 1024


def _listed_memory(name: str) -> float:
    """Return the bytes under ``name`` in Linux's list, elsewhere all physical memory."""
    for line in _lines(_MEMINFO):
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1024
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):
        return math.inf
