"""Which device a run uses and how exactly it computes there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from shipbench.errors import InputError

if TYPE_CHECKING:
    import torch

_PRECISIONS = ("auto", "fp32", "bf16")
# Since this release, Linux lists every instruction set with bf16 that torch looks for.
_LISTS_BF16 = (5, 16)
# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def resolve_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:i``; raises ``InputError`` if there is none."""
    import torch

    _require_known(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device


def _require_known(name: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", name):
        raise InputError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:0")


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
    _require_known(device)
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


def inference_batch(device: torch.device) -> int:
    """Return how many images go through a model at once when nothing is trained.

    Starting kernels takes a GPU's host the same time for any number of images: more of them keep the GPU busy.
    """
    return 512 if device.type == "cuda" else 128


def devices_for_workers(device: torch.device, jobs: int) -> list[str]:
    """Return one device name for each of ``jobs`` workers: every CUDA device in turn, or the CPU for all."""
    if str(device) == "cuda":
        import torch

        return [f"cuda:{index % torch.cuda.device_count()}" for index in range(jobs)]
    return [str(device)] * jobs


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
