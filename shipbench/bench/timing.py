"""Seconds of a piece of work, and of the rounds of a benchmark."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from shipbench.hardware.precision import ComputeContext

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """Seconds for one batch: the median and the range over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def over(cls, rounds: Sequence[float]) -> Timing:
        """Return the median and the range of the seconds of ``rounds``."""
        return cls(statistics.median(rounds), min(rounds), max(rounds))


def timed(work: Callable[[], T], compute: ComputeContext | None = None) -> tuple[float, T]:
    """Run ``work`` and return its seconds, including the work of the device of ``compute``, and its result."""
    if compute is not None:
        compute.wait()
    start = time.perf_counter()
    result = work()
    if compute is not None:
        compute.wait()
    return time.perf_counter() - start, result
