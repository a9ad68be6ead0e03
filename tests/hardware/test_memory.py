"""Memory of a run's process on a system with glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
