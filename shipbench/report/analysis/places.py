"""Where runs were made: speeds compare only within one place."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from shipbench.counts import counted


class Place(NamedTuple):
    """The device and precision of a run, and its number of threads on a CPU, 0 elsewhere or if it is not recorded."""

    device: str
    precision: str
    threads: int

    @property
    def conditions(self) -> str:
        """The precision and the number of threads in words."""
        return ", ".join(filter(None, (self.precision, counted(self.threads, "thread") if self.threads else "")))

    @property
    def name(self) -> str:
        """The device and its conditions in words."""
        return ", ".join(filter(None, (self.device, self.conditions)))


def places(runs: pd.DataFrame) -> pd.Series[Any]:
    """Return the place of every run."""
    threads = runs["threads"].where(runs["device"].str.startswith("cpu")).fillna(0).astype(int)
    rows = zip(runs["device"], runs["precision"], threads, strict=True)
    return pd.Series([Place(*row) for row in rows], index=runs.index, dtype=object)
