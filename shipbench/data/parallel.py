"""Parallel work over thousands of small files, with results in order and a progress display."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from shipbench.runtime.console import track

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 32


def map_items(
    function: Callable[[Item], Result], items: Sequence[Item], description: str, jobs: int | None
) -> Iterator[Result]:
    """Yield the result of ``function`` for every item, in order, as ``stream`` does."""

    def work(start: int, stop: int) -> list[Result]:
        return [function(item) for item in items[start:stop]]

    return stream(work, len(items), description, jobs)


def stream(
    work: Callable[[int, int], Sequence[Result]], total: int, description: str, jobs: int | None, chunk: int = _CHUNK
) -> Iterator[Result]:
    """Yield one result for every index below ``total``, in order.

    ``work(start, stop)`` returns the results of a range of at most ``chunk`` indices, which starts at a multiple of
    ``chunk``. It runs on ``jobs`` threads or one per usable core (Pillow and hashlib release the interpreter lock); its
    exceptions are raised here.
    """
    yield from track(_results(work, total, jobs, chunk), description, total)


def _results(
    work: Callable[[int, int], Sequence[Result]], total: int, jobs: int | None, chunk: int
) -> Iterator[Result]:
    import joblib

    starts = range(0, total, chunk)
    calls = (joblib.delayed(work)(start, min(start + chunk, total)) for start in starts)
    threads = max(1, min(jobs or joblib.cpu_count(), len(starts)))
    pool = joblib.Parallel(n_jobs=threads, backend="threading", return_as="generator")
    for results in pool(calls):
        yield from results
