"""Costs: the steps of every method against the bare backbone, and whole runs from image files to the stored record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shipbench.runtime.lazy import names_from

if TYPE_CHECKING:
    from shipbench.bench.end_to_end import EndToEnd, run_end_to_end
    from shipbench.bench.options import BenchOptions, EndToEndOptions
    from shipbench.bench.steps import Measurement, as_json, environment, run_bench

__all__ = [
    "BenchOptions",
    "EndToEnd",
    "EndToEndOptions",
    "Measurement",
    "as_json",
    "environment",
    "run_bench",
    "run_end_to_end",
]

# Lazy, so that the table of figures that were measured before is written without torch.
__getattr__ = names_from(
    __name__,
    {
        "BenchOptions": "options",
        "EndToEnd": "end_to_end",
        "EndToEndOptions": "options",
        "Measurement": "steps",
        "as_json": "steps",
        "environment": "steps",
        "run_bench": "steps",
        "run_end_to_end": "end_to_end",
    },
)
