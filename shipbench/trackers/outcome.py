"""What trackers receive at the end of a run: numbers, files and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from shipbench.record import RunRecord, record_columns
from shipbench.results.store import Store
from shipbench.trackers.interface import Outcome

if TYPE_CHECKING:
    from PIL.Image import Image

_TOPICS = ("scores", "cost")
_FIGURES = ("affinity-", "confusion-")


def outcome(record: RunRecord, results: Path) -> Outcome:
    """Return the outcome of a run that is stored in ``results``."""
    store = Store(results)
    paths = [store.path(kind, record.run_id) for kind in ("runs", "history", "predictions")]
    return Outcome(record, _numbers(record), tuple(filter(Path.is_file, paths)), partial(run_figures, record, results))


def _numbers(record: RunRecord) -> dict[str, float]:
    row = record.to_row()
    columns = [column.name for column in record_columns() if column.topic in _TOPICS and column.kind != "str"]
    return {name: float(row[name]) for name in columns if math.isfinite(row[name])}


def run_figures(record: RunRecord, results: Path) -> Mapping[str, Image]:
    """Return the figures of a report that show a single run: SHIP's hierarchy, and the classes of small tasks.

    A failed run has none, and neither has one of the protocol "tuning".
    """
    if not record.done or record.protocol != "final":
        return {}
    import pandas as pd
    from PIL.Image import open as open_image

    from shipbench.report import build_report
    from shipbench.report.render.images import images
    from shipbench.results.loading import load_predictions

    built = build_report(pd.DataFrame([record.to_row()]), predictions=partial(load_predictions, results))
    drawn = [figure for figure in built.figures() if figure.name.startswith(_FIGURES)]
    return {figure.name: open_image(BytesIO(images(figure, ["png"])["png"])) for figure in drawn}
