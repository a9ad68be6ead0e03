"""Record work once and replay it without Python, as a CUDA graph.

Replays run the recorded operations again, in the same order and on the same memory. Whatever else the recorded work did
(change a Python object, draw a random number on the host, wait for a value) happens only once, while it is recorded.
Random numbers of the device's default generator are drawn anew in every replay, which advances the generator as the
work itself would.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch

from shipbench.hardware.streams import side_streams

_WARM_UP_CALLS = 3


class Recording(Protocol):
    """Recorded work."""

    def replay(self) -> None:
        """Queue the work again."""
        ...


class Recorder(Protocol):
    """A way to record work on one device. The recordings of one recorder share memory: replay one at a time."""

    def warm_up(self, work: Callable[[], object]) -> None:
        """Call ``work`` a few times, so that libraries have set themselves up before it is recorded."""
        ...

    def record(self, work: Callable[[], object]) -> Recording:
        """Record ``work``; its operations need not run now. Raises an error if it cannot be replayed."""
        ...


class CudaGraphs:
    """Records work as CUDA graphs, which share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = side_streams(device).recordings
        self._new_pool()
        self._scalar = torch.zeros((), device=device)

    def warm_up(self, work: Callable[[], object]) -> None:
        """Call ``work`` on the stream on which it will be recorded."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP_CALLS):
                    work()
        finally:
            # Also after an error: an update that is still running must not overwrite weights that are restored next.
            current.wait_stream(self._stream)

    def record(self, work: Callable[[], object]) -> Recording:
        """Record ``work`` without running it."""
        graph = torch.cuda.CUDAGraph()
        if not self._recorded:
            # The allocator takes no pool whose recordings are all gone while a tensor in it, as a gradient, is left.
            self._new_pool()
        try:
            self._capture(graph, self._pool, work)
        except Exception:
            self._leave_capture_mode(graph)
            raise
        self._recorded.add(graph)
        return graph

    def _new_pool(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._recorded = weakref.WeakSet[torch.cuda.CUDAGraph]()

    def _capture(self, graph: torch.cuda.CUDAGraph, pool: Any, work: Callable[[], object]) -> None:
        current = torch.cuda.current_stream(self.device)
        # A recording that fails at its end leaves its stream behind as the current one. In the default mode, a thread
        # that reads images ahead would end the recording when it allocates memory.
        with (
            torch.cuda.stream(current),
            torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            work()

    def _leave_capture_mode(self, graph: torch.cuda.CUDAGraph) -> None:
        """Clean up after a recording that CUDA refused to end, as torch 2.14 does by itself and torch 2.8 does not.

        The caller raises the error of the recording, so none is raised here.
        """
        # Nothing can be recorded in its pool again, whether that is still open or has been released.
        pool = self._pool
        self._new_pool()
        with contextlib.suppress(RuntimeError):
            graph.reset()
        # While a pool is open, the allocator frees neither its memory nor any block that two streams have used, such as
        # streamed images. Only private functions close it; the first of them raises an error if it is closed.
        with contextlib.suppress(AttributeError, RuntimeError):
            torch._C._cuda_endAllocateToPool(self._stream.device_index, pool)
            torch._C._cuda_releasePool(self._stream.device_index, pool)
        # The default generator leaves its capture mode, in which dropout raises an error, when a recording ends. This
        # one allocates nothing, because memory may have run out.
        with contextlib.suppress(RuntimeError):
            self._capture(torch.cuda.CUDAGraph(), None, self._scalar.zero_)


RECORDERS: dict[str, Callable[[torch.device], Recorder]] = {"cuda": CudaGraphs}
"""Recorders by type of device; on other devices, recorded work would gain nothing."""


def can_record(device: torch.device) -> bool:
    """Return whether work on ``device`` can be recorded."""
    return device.type in RECORDERS


def new_recorder(device: torch.device) -> Recorder | None:
    """Return a recorder of its own pool of memory, or None for a device on which work cannot be recorded."""
    return RECORDERS[device.type](device) if can_record(device) else None
