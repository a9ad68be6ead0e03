"""What the images of a run were: the name of people's own task may stand for other images or treatments tomorrow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import pandas as pd


class DataVersion(NamedTuple):
    """The images of a run on people's own task, their draw and their treatment; empty if a record does not state it.

    All are empty for a catalogued task, whose name stands for the images.
    """

    fingerprint: str = ""
    draw: str = ""
    resize: str = ""
    augment: str = ""

    def agrees_with(self, other: DataVersion) -> bool:
        """Return whether both are the same, as far as both are stated."""
        return all(ours == theirs or "" in (ours, theirs) for ours, theirs in zip(self, other, strict=True))

    def is_tested_as(self, other: DataVersion) -> bool:
        """Return whether both agree apart from the draw, which may be that of another number of shots."""
        return self._replace(draw="").agrees_with(other)


def data_versions(frame: pd.DataFrame, catalogued: Sequence[bool]) -> pd.Series[Any]:
    """Return the data version of every run, ``completed``."""
    stated = frame[["data_fingerprint", "draw", "resize", "augment"]].itertuples(index=False, name=None)
    versions = [
        DataVersion() if known else DataVersion(*facts) for facts, known in zip(stated, catalogued, strict=True)
    ]
    cells = list(zip(frame["task"], catalogued, frame["kind"], frame["protocol"], strict=True))
    filled = completed(versions, cells, frame["shots"].fillna(0).tolist())
    return pd.Series(filled, index=frame.index, dtype=object)


def completed(versions: Sequence[DataVersion], cells: Sequence[Hashable], shots: Sequence[float]) -> list[DataVersion]:
    """Return ``versions`` with what a record does not state, where the other records of its cell state one value.

    Draw and treatment are those of the records with the same images, and the draw that of the same number of ``shots``.
    """
    versions = _with_only_value("fingerprint", versions, cells)
    of_images = [(cell, version.fingerprint) for cell, version in zip(cells, versions, strict=True)]
    versions = _with_only_value("draw", versions, list(zip(of_images, shots, strict=True)))
    versions = _with_only_value("resize", versions, of_images)
    return _with_only_value("augment", versions, of_images)


def _with_only_value(fact: str, versions: Sequence[DataVersion], cells: Sequence[Hashable]) -> list[DataVersion]:
    stated: dict[Hashable, set[str]] = defaultdict(set)
    for cell, version in zip(cells, versions, strict=True):
        stated[cell] |= {getattr(version, fact)} - {""}
    only = {cell: values.pop() for cell, values in stated.items() if len(values) == 1}
    return [
        version if getattr(version, fact) or cell not in only else version._replace(**{fact: only[cell]})
        for cell, version in zip(cells, versions, strict=True)
    ]
