"""Measure the images per second of parallel processes that train through a frozen backbone on a share of the cores.

``python -m shipbench.engine.throughput WORKLOAD`` starts one of those processes. For each line "THREADS SECONDS" on
its standard input, it trains for that long and prints its images/s; it exits at the end of the input.
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
from shipbench.errors import ShipbenchError
from shipbench.hardware.memory import PeakMemory, keep_freed_memory
from shipbench.hardware.precision import ComputeContext
from shipbench.runtime.interrupts import leave_signals_to_the_parent

_ROUNDS = 3
# About the tokens of a batch of the demo suite: enough for matrix products that threads can share.
_TOKENS = 1024
_MEMORY_SHARE = 0.8
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Workload:
    """Training through ``backbone``, with random weights, in batches of ``batch_size``."""

    backbone: str
    image_size: int | None
    batch_size: int
    precision: str


def measure(
    workload: Workload, jobs: Sequence[int], cores: int, memory: float, seconds: float = 1.0
) -> dict[int, float]:
    """Return the images/s of each number of processes in ``jobs``, which divide ``cores`` among them.

    The numbers take turns of ``seconds``, or of one step if that takes longer, so that a drift of the machine's speed
    affects all alike; the rates are medians over several rounds. Numbers above 1 whose training would take more than
    80 % of ``memory`` (bytes) are omitted. Raises ``ShipbenchError`` if a process ends early.
    """
    bytes_per_run = _bytes_per_run(workload)
    fitting = [number for number in jobs if number == 1 or number * bytes_per_run <= _MEMORY_SHARE * memory]
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
    return ShipbenchError("the throughput of parallel runs could not be measured: a measuring process ended early")


def _training(workload: Workload) -> tuple[Callable[[], None], int]:
    """Return a training step, and the number of images in its batch."""
    keep_freed_memory(_CPU)
    vit = load_backbone(workload.backbone, checkpoint="random", image_size=workload.image_size)
    size, patches = int(vit.patch_embed.img_size[0]), int(vit.patch_embed.num_patches)
    images = torch.randn(max(1, min(workload.batch_size, _TOKENS // patches)), 3, size, size)
    labels, compute = torch.zeros(len(images)), ComputeContext(_CPU, workload.precision)
    model = BareBackbone(vit).train()

    def step() -> None:
        with compute.autocast():
            loss = model.loss(images, labels)
        loss.backward()

    return step, len(images)


def _bytes_per_run(workload: Workload) -> float:
    """Return the memory of a process that executes a run: that of this one, and what a step adds for each image."""
    step, images = _training(workload)
    memory = PeakMemory(_CPU)
    resting = memory.bytes()
    step()
    return resting + (memory.bytes() - resting) * workload.batch_size / images


def _work(workload: Workload) -> None:
    """Print a line when ready, then answer every line of standard input with the images/s of a measurement."""
    step, images = _training(workload)
    print(_rate(step, 0), flush=True)
    for line in sys.stdin:
        threads, seconds = line.split()
        torch.set_num_threads(int(threads))
        print(_rate(step, float(seconds)) * images, flush=True)


def _rate(step: Callable[[], None], seconds: float) -> float:
    """Run ``step`` at least once and for at least ``seconds``; return steps per second."""
    start, steps, elapsed = time.perf_counter(), 0, 0.0
    while steps == 0 or elapsed < seconds:
        step()
        steps, elapsed = steps + 1, time.perf_counter() - start
    return steps / elapsed


if __name__ == "__main__":
    leave_signals_to_the_parent()
    _work(Workload(**json.loads(sys.argv[1])))
