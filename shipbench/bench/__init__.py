"""Costs: the steps of every method against the bare backbone, and whole runs from image files to the stored record."""

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
