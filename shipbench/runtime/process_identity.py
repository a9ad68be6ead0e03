"""Identify processes, and check whether one is still running."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, described so that a later one with the same id is not taken for it.

    ``place`` is where process ids mean the same: a machine since its last boot and, in a container, the container.
    ``started`` is the start time of the process in clock ticks since boot, or empty if the system does not report it.
    """

    host: str
    place: str
    pid: int
    started: str


def current_process() -> ProcessIdentity:
    """Return the identity of this process."""
    return ProcessIdentity(platform.node(), _place(), os.getpid(), _start_time(os.getpid()) or "")


def is_running(process: ProcessIdentity) -> bool | None:
    """Return whether ``process`` is still running, or None if that cannot be known from here.

    It cannot be known for a process of another machine or container, nor for an id in use whose start time the system
    does not report.
    """
    if process.place != _place():
        return None
    started = _start_time(process.pid)
    return None if started == "" else started == process.started


@cache
def _place() -> str:
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115
    return " ".join(parts)


def _start_time(pid: int) -> str | None:
    """Return the start time of a process on this machine, empty if the system does not report it, None if it ended."""
    if not Path("/proc/self/stat").exists():
        return "" if _exists(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        # The system may hide the processes of other users here (hidepid), but not that they exist.
        return "" if _exists(pid) else None
    # The split drops the first two fields of the line: [0] is the state (a zombie has ended), [19] the start time.
    return None if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    """Return whether the id is in use, or may be."""
    if sys.platform == "win32":
        # Its os.kill asks nothing: it interrupts or ends the process.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
