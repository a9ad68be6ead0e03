"""The next batch is read while the device computes on this one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from shipbench.training.inputs import Inputs

_Ready = Future[Callable[[], Tensor]]


class Prefetcher:
    """Batches of ``inputs`` for whoever goes through them in order, each read in a thread while the last is in use.

    To be used in a ``with`` block, after which the thread is gone. What reading raises is raised by the ``batch`` that
    it was for; a batch that nobody expected (fewer images after memory ran out) is read when it is asked for.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._expected: tuple[Tensor, _Ready] | None = None

    def __enter__(self) -> Prefetcher:
        """Return itself; the thread starts with the first batch."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being read and end the thread."""
        self._reader.shutdown(cancel_futures=True)

    def batch(self, indices: Tensor) -> Tensor:
        """Return the inputs at ``indices`` (CPU, long), on the device, and begin to read as many that follow."""
        ready = self._take(indices)
        following = indices + len(indices)
        self._expect(following[following < len(self.inputs)])
        return ready.result()()

    def _take(self, indices: Tensor) -> _Ready:
        expected, self._expected = self._expected, None
        if expected is not None and torch.equal(expected[0], indices):
            return expected[1]
        return self._reader.submit(self.inputs.read, indices)

    def _expect(self, indices: Tensor) -> None:
        if len(indices):
            self._expected = indices, self._reader.submit(self.inputs.read, indices)
