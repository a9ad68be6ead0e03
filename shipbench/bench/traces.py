"""Torch's profiler, and the traces that it writes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile


def make_profiler(activities: Iterable[ProfilerActivity], *, memory: bool = False) -> profile:
    """Return a profiler that has not started, of operations or also of the ``memory`` that they allocate."""
    # Above every level of the profiler's log, which would otherwise tell of each start and stop. It is read when the
    # first profiler of a process starts.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    return profile(activities=activities, profile_memory=memory)


def trace_events(profiler: profile) -> list[dict[str, Any]]:
    """Return the events of a stopped profiler, in Chrome's trace event format; times in microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events: list[dict[str, Any]] = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return events
