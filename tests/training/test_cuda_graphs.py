"""Streams, pools and failures of CUDA graphs, on objects that stand in for those of torch."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch

from shipbench.hardware import streams
from shipbench.training.captured import NotRecordedError, recorded
from shipbench.training.graphs import CudaGraphs
from shipbench.training.inputs import _send

CPU = torch.device("cpu")


class FakeCuda:
    """Streams and graphs in place of those of ``torch.cuda``; ``waits`` names the stream that waits, then the other.

    A recording that cannot be ended stays ``underway``, and the generator ``capturing``, as in torch 2.8. A pool whose
    recordings are all gone takes no other one, as if a tensor in it were left.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[tuple[str, str]] = []
        self.main = self.current = FakeStream("main", self)
        self.made = 0
        self.pools = 0
        self.underway: set[int] = set()
        self.recorded: dict[int, weakref.WeakSet[FakeGraph]] = {}
        self.capturing = False
        self.modes: list[str] = []
        self.index = 0
        for name, fake in {
            "Stream": self.make_stream,
            "current_device": lambda: 0,
            "current_stream": lambda device: self.current,
            "stream": self.stream,
            "device": self.device,
            "graph_pool_handle": self.make_pool,
            "CUDAGraph": FakeGraph,
            "graph": self.graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_pool, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda device, pool: None, raising=False)
        monkeypatch.setattr(streams, "_side_streams", cache(streams._side_streams.__wrapped__))

    def make_stream(self, device: torch.device) -> FakeStream:
        # torch has 32 streams, and hands them out in turn.
        self.made += 1
        return FakeStream(f"side {self.made % 32}", self)

    def make_pool(self) -> int:
        self.pools += 1
        return self.pools

    def end_pool(self, device: int, pool: int) -> None:
        if pool not in self.underway:
            raise RuntimeError("not currently recording to this pool")
        self.underway.remove(pool)

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.index = self.index, device.index or 0
        try:
            yield
        finally:
            self.index = before

    @contextmanager
    def graph(
        self, graph: FakeGraph, *, pool: int | None, stream: FakeStream, capture_error_mode: str
    ) -> Iterator[None]:
        pool = self.make_pool() if pool is None else pool
        self.modes.append(capture_error_mode)
        assert pool not in self.underway
        if not self.recorded.get(pool, {graph}):
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        self.underway.add(pool)
        before, self.current, self.capturing = self.current, stream, True
        try:
            yield
        except RuntimeError as error:
            # As in torch, nothing restores the current stream then.
            raise RuntimeError("operation failed due to a previous error during capture") from error
        self.current, self.capturing = before, False
        self.underway.remove(pool)
        self.recorded.setdefault(pool, weakref.WeakSet()).add(graph)


class FakeGraph:
    def reset(self) -> None:
        """Leave everything as it is: the recording has not been ended."""


class FakeStream:
    device_index = 0

    def __init__(self, name: str, cuda: FakeCuda) -> None:
        self.name, self.cuda = name, cuda

    def wait_stream(self, other: FakeStream) -> None:
        """Note that this stream waits for another."""
        self.cuda.waits.append((self.name, other.name))

    def record_event(self) -> None:
        """Record nothing: what is copied is there at once."""


def test_an_error_leaves_no_stream_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, seen = FakeCuda(monkeypatch), list[str]()
    graphs = CudaGraphs(CPU)

    def work() -> None:
        seen.append(cuda.current.name)
        if len(seen) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(seen) == 3:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(torch.OutOfMemoryError):
        graphs.warm_up(work)
    side = seen[0]
    # What follows, such as restoring the weights, waits for the update of the first call.
    assert cuda.waits == [(side, "main"), ("main", side)]
    with pytest.raises(NotRecordedError):
        recorded(graphs, work)
    assert seen == [side] * 3
    assert cuda.current is cuda.main


class Sent:
    """Images that note the name of the stream on which they are copied."""

    def __init__(self, cuda: FakeCuda, copied: list[str]) -> None:
        self.cuda, self.copied = cuda, copied

    def to(self, device: torch.device, *, non_blocking: bool) -> Sent:
        self.copied.append(self.cuda.current.name)
        return self


def test_all_recordings_use_one_stream_that_no_copy_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, recordings, copies = FakeCuda(monkeypatch), list[str](), list[str]()
    # A stack has a recorder for each of its runs.
    for _ in range(40):
        CudaGraphs(CPU).record(lambda: recordings.append(cuda.current.name))
        _send(Sent(cuda, copies), torch.device("cuda", 0))  # type: ignore[arg-type]
    assert len(set(recordings)) == len(set(copies)) == 1
    assert set(recordings).isdisjoint(copies)


def test_a_copy_begins_on_the_gpu_that_it_goes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, indices = FakeCuda(monkeypatch), list[int]()

    class Noting(Sent):
        def to(self, device: torch.device, *, non_blocking: bool) -> Sent:
            indices.append(self.cuda.index)
            return super().to(device, non_blocking=non_blocking)

    # A thread that reads ahead is on the first GPU.
    _send(Noting(cuda, []), torch.device("cuda", 1))  # type: ignore[arg-type]
    assert (indices, cuda.index) == ([1], 0)


def test_another_thread_may_allocate_memory_during_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    CudaGraphs(CPU).record(lambda: None)
    # In CUDA's default mode, a thread that reads images ahead would end the recording.
    assert cuda.modes == ["thread_local"]


def test_recordings_share_a_pool_until_all_of_them_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    graphs = CudaGraphs(CPU)
    kept = [recorded(graphs, lambda: None) for _ in range(2)]
    assert [len(recordings) for recordings in cuda.recorded.values()] == [2]
    # A stack that has lost a run records its step again.
    kept.clear()
    recorded(graphs, lambda: None)
    assert [len(recordings) for recordings in cuda.recorded.values()] == [0, 0]


def refuse() -> None:
    raise RuntimeError("operation not permitted when stream is capturing")


def test_nothing_counts_as_recorded_after_a_recording_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    graphs, calls = CudaGraphs(CPU), list[int]()
    with pytest.raises(NotRecordedError, match="previous error during capture"):
        recorded(graphs, refuse)
    assert (cuda.underway, cuda.capturing) == (set(), False)
    # An evaluation is recorded by the same recorder.
    recorded(graphs, lambda: calls.append(1))
    assert calls == [1]


def test_torch_may_end_a_failed_recording_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)

    def end(graph: FakeGraph) -> None:
        cuda.underway.clear()

    monkeypatch.setattr(FakeGraph, "reset", end)
    for _ in range(2):
        with pytest.raises(NotRecordedError, match="previous error during capture"):
            recorded(CudaGraphs(CPU), refuse)
        assert (cuda.underway, cuda.capturing) == (set(), False)
        monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool", raising=False)


def test_the_error_of_a_recording_is_reported_though_nothing_can_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    graphs = CudaGraphs(CPU)

    def lose_the_device() -> None:
        monkeypatch.setattr(FakeGraph, "reset", lambda graph: refuse())
        monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: refuse())
        raise RuntimeError("an illegal memory access was encountered")

    with pytest.raises(NotRecordedError, match="previous error during capture"):
        recorded(graphs, lose_the_device)
    assert cuda.current is cuda.main
