"""shipbench: benchmark and ablation harness for semantic hierarchical prompt tuning on VTAB-1k."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shipbench.hardware.determinism import fix_workspace
from shipbench.runtime.lazy import names_from
from shipbench.runtime.version import VERSION

if TYPE_CHECKING:
    from shipbench.record import RunRecord
    from shipbench.results.loading import load_results
    from shipbench.runs.event_text import print_progress
    from shipbench.runs.run import run
    from shipbench.spec import RunSpec

# Before torch initialises CUDA, after which it has no effect.
fix_workspace()

__version__ = VERSION
__all__ = ["RunRecord", "RunSpec", "__version__", "load_results", "print_progress", "run"]

# Lazy, so that ``import shipbench`` loads neither torch nor pandas.
__getattr__ = names_from(
    __name__,
    {
        "RunRecord": "record",
        "RunSpec": "spec",
        "load_results": "results.loading",
        "print_progress": "runs.event_text",
        "run": "runs.run",
    },
)
