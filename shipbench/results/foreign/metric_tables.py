"""CSV files with a row per epoch, as timm and Lightning write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipbench.results.foreign.result import Evaluation, Skipped, ends_early, in_sequence, unfinished
from shipbench.results.foreign.text import read_text, whole


@dataclass(frozen=True)
class MetricTable:
    """The accuracies in one column of a table.

    ``tests`` are the evaluations of the last attempt, ``most_epochs`` the epochs of the attempt that came furthest, and
    ``broken`` is the last cell of the column if it is no number, such as ``nan``.
    """

    tests: tuple[Evaluation, ...]
    most_epochs: int
    broken: str

    def why_without_result(self, path: Path, epochs: int | None) -> Skipped | None:
        """Return why the table of a run of ``epochs`` gives no result, or None for that of a finished run.

        If their number is not known, a run was to have as many as an earlier attempt in the file reached.
        """
        if self.broken:
            return unfinished(path, self.tests, epochs, f"then the accuracy is {self.broken}, no number")
        planned = self.most_epochs if epochs is None else epochs
        why = "as many as an earlier attempt in it reached" if epochs is None else ""
        return unfinished(path, self.tests, planned, why) if ends_early(self.tests, planned) else None


def read_metrics(path: Path, column: str, read: Callable[[Any, str], float | None]) -> MetricTable:
    """Return the accuracies in a column, each with its epoch; ``read`` turns a cell into a fraction.

    Raises ``ValueError`` for an accuracy outside its range.
    """
    _, rows = read_table(path)
    cells = [(whole(row.get("epoch")), row.get(column, "")) for row in rows]
    scores = [(epoch, cell, read(cell, column)) for epoch, cell in cells if epoch is not None and cell]
    broken = scores[-1][1] if scores and scores[-1][2] is None else ""
    most = max((epoch for epoch, _, score in scores if score is not None), default=-1) + 1
    # A resumed run repeats the header, and one that starts over also the epochs.
    return MetricTable(tuple(in_sequence((epoch, score) for epoch, _, score in scores)), most, broken)


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the first header of a CSV file of epochs, and its rows by column.

    A repeated header names the columns of the rows below it. A row with fewer cells than its header, such as the last
    row of a killed run, is left out: its numbers may be cut or stand in another column.
    """
    lines = csv.reader(io.StringIO(read_text(path)), skipinitialspace=True)
    cells = [[cell.strip() for cell in line] for line in lines if line]
    header: list[str] = []
    rows: list[dict[str, str]] = []
    for line in cells:
        if line is cells[0] or "epoch" in line:
            header = line
        elif len(line) >= len(header):
            rows.append(dict(zip(header, line, strict=False)))
    return cells[0] if cells else [], rows
