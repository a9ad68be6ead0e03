"""The precision of a run, chosen without torch where the device is certain, and the context that applies it."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from shipbench.errors import InputError, unknown
from shipbench.hardware.device import check_device_name, resolve_device

if TYPE_CHECKING:
    import torch

_PRECISIONS = ("auto", "fp32", "bf16")
# The first Linux release whose /proc/cpuinfo lists all instruction sets with bf16 that torch uses.
_LISTS_BF16 = (5, 16)


@dataclass(frozen=True)
class ComputeContext:
    """The device and the precision (``fp32`` or ``bf16``) in which a model computes."""

    device: torch.device
    precision: str

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of forward passes: torch's autocast for bf16, disabled in fp32, and ``products``."""
        import torch

        cast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")
        return _both(cast, self.products()) if self.lacks_bf16 else cast

    def products(self) -> AbstractContextManager[object]:
        """Return the context of backward passes, in which a CPU without bf16 instructions multiplies in fp32."""
        if not self.lacks_bf16:
            return nullcontext()
        from shipbench.hardware.products import ProductsInFp32

        return ProductsInFp32()  # type: ignore[no-untyped-call]

    @property
    def lacks_bf16(self) -> bool:
        """Whether the precision is bf16, on a CPU that has no instructions for it."""
        # What torch says of the instructions of a CPU is known on x86 alone.
        on_x86 = self.device.type == "cpu" and platform.machine() in ("x86_64", "AMD64")
        return self.precision == "bf16" and on_x86 and not _has_bf16(self.device)

    def wait(self) -> None:
        """Wait until the device has finished its work, for example before reading a clock."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def resolve_precision(name: str, device: torch.device) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` is bf16 if the device has instructions for it, and fp32 on MPS.

    Raises ``InputError`` for any other name, and for bf16 on MPS.
    """
    check_precision_name(name)
    if device.type == "mps":
        return _precision_on_mps(name)
    if name != "auto":
        return name
    return "bf16" if _has_bf16(device) else "fp32"


def check_precision_name(name: str) -> None:
    """Raise ``InputError`` for a name that is none of ``auto``, ``fp32`` and ``bf16``."""
    if name not in _PRECISIONS:
        raise unknown("precision", name, _PRECISIONS)


def _precision_on_mps(name: str) -> str:
    check_precision_name(name)
    if name == "bf16":
        raise InputError("runs on mps compute in fp32 only; choose --precision fp32 or auto, or --device cpu for bf16")
    return "fp32"


def precision_on(device: str, precision: str) -> str:
    """Resolve ``precision`` on the device named ``device``, without importing torch if the result is certain.

    Planning needs nothing else from a device, and importing torch takes seconds. Raises ``InputError`` as
    ``resolve_device`` and ``resolve_precision`` do.
    """
    if device == "auto" and precision == "auto" and platform.system() == "Darwin":
        # The precision of its GPU and of its CPU alike.
        return "fp32"
    on_cpu = device == "cpu" or (device == "auto" and _has_no_gpu())
    if on_cpu and precision in _PRECISIONS and (precision != "auto" or _has_no_bf16()):
        return "fp32" if precision == "auto" else precision
    return resolve_precision(precision, resolve_device(device))


def precision_elsewhere(device: str, precision: str) -> str:
    """Resolve ``precision`` for a run on another machine, whose device need not exist here.

    ``auto`` is resolved as for a run on this machine, because precision is part of the run id. Raises ``InputError``
    for unknown names, and for ``auto`` with a device that this machine does not have.
    """
    check_device_name(device)
    if device == "mps":
        return _precision_on_mps(precision)
    if precision != "auto":
        return precision_on("cpu", precision)
    try:
        return precision_on(device, precision)
    except InputError as error:
        raise InputError(f"{error}; choose the precision of its workers with --precision fp32 or bf16") from error


@cache
def _has_no_gpu() -> bool:
    """Return True if torch certainly finds no GPU: no NVIDIA driver library and no AMD device."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


@cache
def _has_no_bf16() -> bool:
    """Return True if the CPU certainly has no bf16 instructions, according to what the system lists."""
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


@contextmanager
def _both(first: AbstractContextManager[object], second: AbstractContextManager[object]) -> Iterator[None]:
    with first, second:
        yield


def _has_bf16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
