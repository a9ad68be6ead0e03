"""shipbench: benchmark and ablation harness for semantic hierarchical prompt tuning on VTAB-1k."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shipbench.runner import run
    from shipbench.spec import RunSpec
    from shipbench.store import RunRecord, load_results

__version__ = "0.1.0"
__all__ = ["RunRecord", "RunSpec", "__version__", "load_results", "run"]

_HOMES = {
    "RunRecord": "shipbench.store",
    "RunSpec": "shipbench.spec",
    "load_results": "shipbench.store",
    "run": "shipbench.runner",
}


def __getattr__(name: str) -> Any:
    """Import an entry point when it is first used, so that ``import shipbench`` loads neither torch nor pandas."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shipbench' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
