"""Which device a run uses and how exactly it computes there."""

from __future__ import annotations

import os

import torch

from shipbench.errors import InputError


def resolve_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:i``; raises ``InputError`` if there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported; choose auto, cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` is bf16 where the device has instructions for it."""
    if name != "auto":
        return name
    return "bf16" if _has_bf16(device) else "fp32"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed torch and ask for deterministic kernels, so that a run repeats exactly on the same device."""
    torch.manual_seed(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def devices_for_workers(device: torch.device, jobs: int) -> list[str]:
    """Return one device name for each of ``jobs`` workers: every CUDA device in turn, or the CPU for all."""
    if device.type == "cuda" and device.index is None:
        return [f"cuda:{index % torch.cuda.device_count()}" for index in range(jobs)]
    return [str(device)] * jobs


class PeakMemory:
    """The highest memory use of this process on a device since the object was made, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _reset_resident_peak()

    def bytes(self) -> int:
        """Return allocated device memory on CUDA, resident memory of the process on the CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _resident_peak()


def _reset_resident_peak() -> None:
    """Ask Linux to forget the peak; elsewhere the peak is that of the whole process."""
    try:
        with open("/proc/self/clear_refs", "w") as stream:  # noqa: PTH123
            stream.write("5")
    except OSError:
        return


def _resident_peak() -> int:
    try:
        with open("/proc/self/status") as stream:  # noqa: PTH123
            peak = next(line for line in stream if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    except (OSError, StopIteration):
        import resource
        import sys

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
