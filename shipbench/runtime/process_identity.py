"""Which process this is, and whether another one is still there."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Claimant:
    """A process: ``place`` is the machine since its last start, ``started`` the process's own beginning."""

    host: str
    place: str
    pid: int
    started: str
    token: str


def myself(token: str) -> Claimant:
    """Describe this process."""
    return Claimant(platform.node(), place_of_process(), os.getpid(), started_at(os.getpid()) or "", token)


@cache
def place_of_process() -> str:
    """Name this machine since its start and, in a container, the container: where process ids mean the same."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115
    return " ".join(parts)


def started_at(pid: int) -> str | None:
    """Return when a process of this machine began, an empty text if that cannot be known, None if it is gone."""
    if not Path("/proc/self/stat").exists():
        return "" if _exists(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # Field 3 is the state (a zombie is gone), field 22 the start in clock ticks; the first two are cut off.
    return None if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
