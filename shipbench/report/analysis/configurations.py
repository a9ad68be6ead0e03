"""The settings of runs as pairs that compare."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import pandas as pd

from shipbench.report.wording.text import printable

Configuration: TypeAlias = tuple[tuple[str, Any], ...]


def configurations(runs: pd.DataFrame) -> list[Configuration]:
    """Return the settings of every run as sorted ``(key, value)`` pairs, without the missing ones."""
    names = sorted(name for name in runs.columns if name.startswith("cfg."))
    # Before pandas 3, a frame without columns yields no rows; run_id keeps one per run.
    rows = runs[["run_id", *names]].itertuples(index=False, name=None)
    return [
        tuple((name, _plain(value)) for name, value in zip(names, values, strict=True) if _present(value))
        for _, *values in rows
    ]


def difference(settings: Configuration, reference: Configuration) -> Configuration:
    """Return the settings that differ from ``reference``, sorted by key; a setting that is missing here is "none"."""
    ours, theirs = dict(settings), dict(reference)
    keys = sorted(ours.keys() | theirs.keys())
    return tuple((key, ours.get(key, "none")) for key in keys if ours.get(key) != theirs.get(key))


def sortable(value: Any) -> tuple[bool, float, str]:
    """Return a sort key for a setting of any type: numbers by value first, then everything else by its text."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return not number, float(value) if number else 0.0, str(value)


def _present(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value)) and value is not pd.NA


def _plain(value: Any) -> Any:
    """Convert numpy numbers and whole floats (from columns with gaps) to Python numbers, so equal settings match."""
    value = value.item() if getattr(value, "size", 0) == 1 and hasattr(value, "item") else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (bool, int, float)) else printable(str(value))
