"""The memory of a training step: in a process that holds nothing else, and in tensors kept for the backward pass."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity

from shipbench.bench.candidates import Candidate, build, make_fixture
from shipbench.bench.options import BenchOptions
from shipbench.bench.subjects import Subject
from shipbench.bench.traces import make_profiler, trace_events
from shipbench.errors import ShipbenchError
from shipbench.hardware.device import as_current
from shipbench.hardware.memory import PeakMemory
from shipbench.hardware.precision import ComputeContext
from shipbench.runtime.interrupts import children_without_interrupts, leave_signals_to_the_parent

# In the second step, gradients and the optimiser's state already exist.
_STEPS = 2


@dataclass(frozen=True)
class StepBytes:
    """What two training steps take: bytes ``added`` to the memory of a process, and at most ``allocated`` at a time.

    ``added`` is resident memory on the CPU, where it depends on what the allocator can reuse, and on MPS what its
    allocator takes from the driver. ``allocated`` counts tensors, temporary ones included; on a GPU, so does ``added``.
    None is unknown, as ``allocated`` is on MPS.
    """

    added: int | None
    allocated: int | None


UNKNOWN = StepBytes(None, None)


def processes() -> ForkServerContext | SpawnContext:
    """Return how the process that measures is started: by a fork server that has only imported torch, or afresh.

    The fork server starts processes at once. On a Mac, the libraries of its CPU and of its GPU fail in a process that
    was forked after they were loaded; Windows cannot fork.
    """
    return get_context("forkserver") if sys.platform == "linux" else get_context("spawn")


def step_bytes_alone(candidate: Candidate, options: BenchOptions, compute: ComputeContext) -> StepBytes:
    """Return what the first training steps add to the memory of a new process that holds only this model.

    In a process that has run other models, it would depend on what they left in the allocator. Raises
    ``ShipbenchError`` if the process dies.
    """
    context = processes()
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, candidate, options, compute, torch.get_num_threads())
    process = context.Process(target=_send_step_bytes, args=arguments, daemon=True)
    with children_without_interrupts():
        process.start()
    sender.close()
    try:
        step_bytes: StepBytes = receiver.recv()
    except EOFError as error:
        raise ShipbenchError(f"no memory of {candidate.name}: the process that measured it died") from error
    finally:
        process.kill()
        process.join()
    return step_bytes


def _send_step_bytes(
    sender: Connection, candidate: Candidate, options: BenchOptions, compute: ComputeContext, threads: int
) -> None:
    leave_signals_to_the_parent()
    torch.set_num_threads(threads)
    with as_current(compute.device):
        subject = build(candidate, options, *make_fixture(options, compute))
        gc.collect()
        before = PeakMemory(compute.device).bytes()
        peak = PeakMemory(compute.device)
        _train(subject)
        added = max(0, peak.bytes() - before)
        if compute.device.type != "cpu":
            sender.send(StepBytes(added, added if compute.device.type == "cuda" else None))
            return
        # A model that has not been trained yet, since the first step allocates the gradients and the optimiser's state.
        subject = build(candidate, options, *make_fixture(options, compute))
        sender.send(StepBytes(added, allocated_bytes(partial(_train, subject))))


def _train(subject: Subject) -> None:
    for _ in range(_STEPS):
        subject.train()


def allocated_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes of tensors on the CPU, temporary ones included, that ``work`` has allocated at a time."""
    with make_profiler([ProfilerActivity.CPU], memory=True) as profiler:
        work()
    changes = [event for event in trace_events(profiler) if event.get("name") == "[memory]"]
    changes.sort(key=lambda event: float(event["ts"]))
    return max(accumulate(int(event["args"]["Bytes"]) for event in changes), default=0)


def tensor_bytes(model: nn.Module, step: Callable[[], object]) -> int:
    """Return the bytes of a model's weights and of the tensors that ``step`` keeps for its backward pass.

    Each storage counts once, in full; gradients and the optimiser's state do not count. The allocator has no influence,
    so the result is the same on every call and on every device with the same kernels.
    """
    storages = {storage.data_ptr(): storage for storage in map(Tensor.untyped_storage, model.state_dict().values())}

    def keep(tensor: Tensor) -> Tensor:
        # Holding the storage keeps its address from being reused during the step.
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storage.nbytes() for storage in storages.values())
