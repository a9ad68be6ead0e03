"""Memory of a run's process on a system with glibc."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from shipbench.hardware import memory
from shipbench.hardware.memory import PeakMemory, available_memory, total_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")

START = """
import resource
import torch
from shipbench.hardware.memory import PeakMemory, keep_freed_memory

CPU = torch.device("cpu")
MB = 2**20


def fill(megabytes):
    torch.ones(megabytes * MB, dtype=torch.uint8)


def pages_of(megabytes):
    for _ in range(20):
        fill(megabytes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fill(megabytes)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

"""


def answers(program: str) -> list[int]:
    """Run a program in a new process, whose allocator is unused, and return the numbers it prints."""
    done = subprocess.run([sys.executable, "-c", START + program], capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


def test_large_tensors_reuse_freed_memory() -> None:
    """64 MB are 16384 pages of 4 kB, or 32 of 2 MB, which the system would otherwise allocate and clear each time."""
    usual, kept = answers("print(pages_of(64)); keep_freed_memory(CPU); print(pages_of(64))")
    assert usual >= 32
    assert kept < 10


def test_a_run_keeps_freed_memory() -> None:
    program = """
from shipbench import RunSpec
from shipbench.errors import ShipbenchError
from shipbench.runs.preparation import prepare

try:
    prepare(RunSpec("linear", "cifar100", checkpoint="random", backbone="vit_tiny_patch16_224", data="no/such/folder"))
except ShipbenchError:
    print(pages_of(64))
"""
    (pages,) = answers(program)
    assert pages < 10


def test_peak_memory_does_not_count_what_was_freed_before() -> None:
    program = """
keep_freed_memory(CPU)
fill(512)
peak = PeakMemory(CPU)
resting = peak.bytes()
fill(128)
print((peak.bytes() - resting) // MB)
"""
    (added,) = answers(program)
    assert 100 < added < 160


MakeLinux = Callable[[str, Mapping[str, str]], None]
UNLIMITED = "9223372036854771712"
MEGABYTE = 1_000_000


@pytest.fixture
def make_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeLinux:
    """Return a function that pretends to be on a machine with 16 GB, 12 of them free, in these cgroups."""

    def make(own_cgroups: str, files: Mapping[str, str]) -> None:
        listed = {"meminfo": "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n", "cgroup": own_cgroups}
        for name, text in {**listed, **{f"cgroups/{name}": text for name, text in files.items()}}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroups")

    return make


@pytest.mark.parametrize(
    ("own_cgroups", "limits", "expected"),
    [
        ("0::/", {}, 16384),
        ("0::/", {"memory.max": "max"}, 16384),
        ("0::/", {"memory.max": "4000000000"}, 4000),
        ("0::/a.slice/b.scope", {"a.slice/memory.max": "3000000000", "a.slice/b.scope/memory.max": "max"}, 3000),
        ("0::/a.slice/b.scope", {"a.slice/memory.max": "max", "a.slice/b.scope/memory.max": "2000000000"}, 2000),
        ("0::/a.slice", {"c.slice/memory.max": "1000000000"}, 16384),
        ("9:cpu:/\n4:memory:/slurm/job", {"memory/slurm/job/memory.limit_in_bytes": "5000000000"}, 5000),
        (
            "4:memory:/slurm/job/step",
            {
                "memory/slurm/memory.limit_in_bytes": UNLIMITED,
                "memory/slurm/job/memory.limit_in_bytes": "5000000000",
                "memory/slurm/job/step/memory.limit_in_bytes": UNLIMITED,
            },
            5000,
        ),
        ("4:memory:/docker/1f", {"memory/memory.limit_in_bytes": "6000000000"}, 6000),
    ],
    ids=["none", "max", "container", "outer", "inner", "another's", "version 1", "job of a step", "path of the host"],
)
def test_the_least_limit_of_the_cgroups_is_the_memory(
    make_linux: MakeLinux, own_cgroups: str, limits: Mapping[str, str], expected: int
) -> None:
    make_linux(own_cgroups, limits)
    assert total_memory() == expected * MEGABYTE


def test_memory_in_use_under_a_limit_is_not_available(make_linux: MakeLinux) -> None:
    """Of 8 GB, 6 are used, 5 of which are page cache that the kernel can drop."""
    job = {
        "job/memory.max": "8000000000",
        "job/memory.current": "6000000000",
        "job/memory.stat": "anon 1000000000\nactive_file 2000000000\ninactive_file 3000000000",
    }
    make_linux("0::/job/step", job)
    assert available_memory() == 7000 * MEGABYTE
    make_linux("0::/job/step", {"job/step/memory.max": "1000000000", "job/step/memory.current": "1000000001"})
    assert available_memory() == 0
    make_linux("0::/job/step", {"job/memory.max": "900000000000", "job/step/memory.max": "max"})
    assert available_memory() == 12288 * MEGABYTE


def test_memory_in_use_under_a_limit_of_version_1_is_not_available(make_linux: MakeLinux) -> None:
    job = {
        "memory/job/memory.limit_in_bytes": "8000000000",
        "memory/job/memory.usage_in_bytes": "6000000000",
        "memory/job/memory.stat": "inactive_file 0\ntotal_active_file 2000000000\ntotal_inactive_file 3000000000",
    }
    make_linux("4:memory:/job\n0::/", job)
    assert available_memory() == 7000 * MEGABYTE
    assert total_memory() == 8000 * MEGABYTE


def test_a_system_that_reports_no_peak_gives_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has neither /proc nor the module resource."""
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert PeakMemory(torch.device("cpu")).bytes() == 0


def test_the_peak_of_linux_is_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("Name:\tpython\nVmPeak:\t 9 kB\nVmHWM:\t 5000 kB\nVmRSS:\t 7 kB\n")
    assert PeakMemory(torch.device("cpu")).bytes() == 5000 * 1024


# Some sandboxes of Linux, such as gVisor, list no peak.
@pytest.mark.parametrize(("system", "unit"), [("Darwin", 1), ("FreeBSD", 1024), ("Linux", 1024)])
def test_the_peak_of_other_systems_is_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, unit: int
) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    if system == "Linux":
        (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t 7 kB\n")
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=5_000_000))
    assert PeakMemory(torch.device("cpu")).bytes() == 5_000_000 * unit
