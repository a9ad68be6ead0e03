"""Images per second of several processes at once, each training through a frozen backbone on its share of the cores.

``python -m shipbench.engine.throughput WORKLOAD`` is one of those processes. A line with threads and seconds on its
standard input lets it work for so long and answer with its images/s; the end of the input ends it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

import torch

from shipbench.backbones import load_backbone
from shipbench.backbones.bare import BareBackbone
from shipbench.bench.subjects import Batch, make_subject
from shipbench.errors import ShipbenchError
from shipbench.hardware.memory import PeakMemory, keep_freed_memory
from shipbench.hardware.precision import ComputeContext
from shipbench.runtime.interrupts import leave_signals_to_the_parent

_ROUNDS = 3
# About as many tokens as a batch of the demo suite has: enough for matrix products that threads can share.
_TOKENS = 1024
_PART_OF_MEMORY = 0.8
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Workload:
    """Training through ``backbone`` in batches of ``batch_size``; its weights do not matter and are random."""

    backbone: str
    image_size: int | None
    batch_size: int
    precision: str


def measure(
    workload: Workload, jobs: Sequence[int], cores: int, memory: float, seconds: float = 1.0
) -> dict[int, float]:
    """Return the images/s of every number in ``jobs`` of processes, among which ``cores`` are divided.

    The numbers take turns of ``seconds``, or of a step if that takes longer, so that a machine whose speed drifts slows
    them alike; medians over rounds are returned.
    Numbers of processes whose training would take most of ``memory`` bytes are left out, one process never.
    Raises ``ShipbenchError`` if a process ends before its time.
    """
    need = _bytes_of_a_run(workload)
    fitting = [number for number in jobs if number == 1 or number * need <= _PART_OF_MEMORY * memory]
    with ExitStack() as stack:
        workers = [_start(workload, stack) for _ in range(max(fitting))]
        for worker in workers:
            _answer(worker)
        rates: dict[int, list[float]] = {number: [] for number in fitting}
        for _ in range(_ROUNDS):
            for number, rounds in rates.items():
                rounds.append(_together(workers[:number], cores // number, seconds))
    return {number: median(rounds) for number, rounds in rates.items()}


def _start(workload: Workload, stack: ExitStack) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "shipbench.engine.throughput", json.dumps(asdict(workload))]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    process = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, text=True))
    stack.callback(process.kill)
    return process


def _together(workers: Sequence[subprocess.Popen[str]], threads: int, seconds: float) -> float:
    try:
        for worker in workers:
            print(threads, seconds, file=worker.stdin, flush=True)
    except OSError as error:
        raise _ended() from error
    return sum(_answer(worker) for worker in workers)


def _answer(worker: subprocess.Popen[str]) -> float:
    line = worker.stdout.readline() if worker.stdout else ""
    try:
        return float(line)
    except ValueError as error:
        raise _ended() from error


def _ended() -> ShipbenchError:
    return ShipbenchError("the number of runs at a time could not be measured: a process that was to work ended")


def _training(workload: Workload) -> tuple[Callable[[], None], int]:
    """Return a step of training, and how many images it takes."""
    keep_freed_memory(_CPU)
    vit = load_backbone(workload.backbone, checkpoint="random", image_size=workload.image_size)
    size, patches = int(vit.patch_embed.img_size[0]), int(vit.patch_embed.num_patches)
    images = torch.randn(max(1, min(workload.batch_size, _TOKENS // patches)), 3, size, size)
    batch = Batch(images, torch.zeros(len(images)), ComputeContext(_CPU, workload.precision))
    return make_subject("bare backbone", None, BareBackbone(vit), batch).train, len(images)


def _bytes_of_a_run(workload: Workload) -> float:
    """Return what this process would take if it did a run: what it has, and what a step adds for every image."""
    step, images = _training(workload)
    memory = PeakMemory(_CPU)
    resting = memory.bytes()
    step()
    return resting + (memory.bytes() - resting) * workload.batch_size / images


def _work(workload: Workload) -> None:
    """Say so when ready, then work whenever a line arrives."""
    step, images = _training(workload)
    print(_rate(step, 0), flush=True)
    for line in sys.stdin:
        threads, seconds = line.split()
        torch.set_num_threads(int(threads))
        print(_rate(step, float(seconds)) * images, flush=True)


def _rate(step: Callable[[], None], seconds: float) -> float:
    """Return steps per second of one step, and more until so many seconds are over."""
    start, steps, elapsed = time.perf_counter(), 0, 0.0
    while steps == 0 or elapsed < seconds:
        step()
        steps, elapsed = steps + 1, time.perf_counter() - start
    return steps / elapsed


if __name__ == "__main__":
    leave_signals_to_the_parent()
    _work(Workload(**json.loads(sys.argv[1])))
