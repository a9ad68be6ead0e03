"""Imported by the fork server: what commands, workers and clusters need, and torch with one thread in all forks."""

from __future__ import annotations

import contextlib
import gc
from importlib import import_module

_MODULES = [
    *("shipbench.engine.supervisor", "shipbench.planning.plan", "shipbench.engine.executors.processes"),
    *("shipbench.cli", "shipbench.cli.tables", "shipbench.methods.ship", "shipbench_baselines.methods"),
    *("sklearn.cluster", "pyarrow.parquet", "platformdirs"),
    *("distributed.cli.dask_scheduler", "distributed.cli.dask_worker"),
    "tests.faults.grids",
]


def _import_all() -> None:
    import torch

    torch.set_num_threads(1)
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            import_module(name)


# Nothing imported becomes garbage; a search through it, here or in a fork, takes half a second.
gc.disable()
_import_all()
gc.freeze()
gc.enable()
