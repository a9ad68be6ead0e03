"""Read the next batch while the device computes on the current one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from shipbench.training.inputs import Inputs

_Ready = Future[Callable[[], Tensor]]


class BatchReader(Protocol):
    """Inputs, or what reads them ahead."""

    def batch(self, indices: Tensor) -> Tensor:
        """Return the inputs at ``indices`` (CPU, long), on the device."""
        ...


@contextmanager
def reading_ahead(inputs: Inputs, batches: Sequence[Tensor]) -> Iterator[BatchReader]:
    """Yield what returns ``batches``, indices (B,), in order, reading the next in a thread where that is worthwhile.

    An exception in the thread is raised by the ``batch`` call that needs its images. Other indices (the parts of
    batches in the epoch in which memory ran out) are read on demand.
    """
    if not inputs.reads_ahead:
        yield inputs
        return
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as reader:
        try:
            yield _Queue(inputs, reader, deque(batches))
        finally:
            reader.shutdown(cancel_futures=True)


class _Queue:
    """The batches that are still to come, the first of them in the thread that reads it."""

    def __init__(self, inputs: Inputs, reader: ThreadPoolExecutor, batches: deque[Tensor]) -> None:
        self._inputs, self._reader, self._batches = inputs, reader, batches
        self._ready = self._submit()

    def batch(self, indices: Tensor) -> Tensor:
        """Return the inputs at ``indices``; if they are the next batch, start to read the one after it."""
        if self._ready is None or not torch.equal(self._batches[0], indices):
            return self._inputs.batch(indices)
        ready = self._ready
        self._batches.popleft()
        self._ready = self._submit()
        return ready.result()()

    def _submit(self) -> _Ready | None:
        return self._reader.submit(self._inputs.read, self._batches[0]) if self._batches else None
