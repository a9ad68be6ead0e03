"""What a training step needs to remember."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext

import torch
from torch import Tensor, nn

from shipbench.bench.candidates import Candidate, build, make_fixture
from shipbench.bench.options import BenchOptions
from shipbench.errors import ShipbenchError
from shipbench.hardware.memory import PeakMemory
from shipbench.hardware.precision import ComputeContext
from shipbench.runtime.interrupts import leave_signals_to_the_parent

# The second step finds gradients and the optimiser's state beside what it computes.
_STEPS = 2
# A server that has torch loaded, and nothing else done, hands out processes at once; Windows has none.
_PROCESSES: ForkServerContext | SpawnContext = (
    get_context("forkserver") if hasattr(os, "fork") else get_context("spawn")
)


def step_bytes_alone(candidate: Candidate, options: BenchOptions, compute: ComputeContext) -> int:
    """Return what the first steps of a process with this one model add to its memory, resident or on its device.

    Where other models have run, it would depend on what they have left in the allocator. Raises ``ShipbenchError`` if
    the process ends before its time.
    """
    _PROCESSES.set_forkserver_preload([__name__])
    receiver, sender = _PROCESSES.Pipe(duplex=False)
    work = (sender, candidate, options, compute, torch.get_num_threads())
    process = _PROCESSES.Process(target=_alone, args=work, daemon=True)
    process.start()
    sender.close()
    try:
        found: int = receiver.recv()
    except EOFError as error:
        raise ShipbenchError(f"no memory of {candidate.name}: the process that was to measure it ended") from error
    finally:
        process.kill()
        process.join()
    return found


def _alone(
    sender: Connection, candidate: Candidate, options: BenchOptions, compute: ComputeContext, threads: int
) -> None:
    leave_signals_to_the_parent()
    torch.set_num_threads(threads)
    one = build(candidate, options, *make_fixture(options, compute))
    gc.collect()
    before = PeakMemory(compute.device).bytes()
    peak = PeakMemory(compute.device)
    for _ in range(_STEPS):
        one.train()
    sender.send(max(0, peak.bytes() - before))


def tensor_bytes(model: nn.Module, step: Callable[[], object]) -> int:
    """Return the bytes of a model's weights and of the tensors that a step keeps for its backward pass.

    Every storage counts once, whole. No allocator has a part in it, so that the count is the same each time and on
    every device with the same kernels; gradients and the optimiser's state are not in it.
    """
    storages = {storage.data_ptr(): storage for storage in map(Tensor.untyped_storage, model.state_dict().values())}

    def keep(tensor: Tensor) -> Tensor:
        # Held until the step is over, or another tensor could be given the same address.
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storage.nbytes() for storage in storages.values())
