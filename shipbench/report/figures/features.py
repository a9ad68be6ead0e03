"""t-SNE of the final features of each method."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from shipbench.counts import counted
from shipbench.report.analysis.classes import class_names
from shipbench.report.analysis.embedding import MOST_CLASSES, MOST_POINTS, StoredFeatures
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Axis, Chart, Panel, Points
from shipbench.report.drawing.palette import BLUE, GREEN, GREY, INK, ORANGE, PINK, PURPLE, SKY, VERMILION
from shipbench.report.figures.style import panel_columns
from shipbench.report.wording.names import task_name
from shipbench.report.wording.text import shortened

_COLOURS = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, GREY, PURPLE, INK, "#8c564b")


def features_figure(view: SuiteView) -> Figure | None:
    """Return t-SNE of the stored features, a panel per task and method; None if no run of the suite has any."""
    stored = view.features
    if not stored:
        return None
    tasks = len({each.task for each in stored})
    draw = partial(draw_features, view, stored)
    return Figure(
        name=f"features-{view.slug}",
        title=f"{view.name}: final features",
        caption=view.caption(
            "t-SNE of the final features of test images, coloured by class; distances between groups mean little.",
            f"One run per method and task, that with the lowest seed. At most {MOST_POINTS} images of the "
            f"{MOST_CLASSES} largest classes, drawn with a fixed seed and the same for all methods of a task; "
            "perplexity 30, or a third of fewer than 91 images; start from principal components.",
        ),
        draw=draw,
        alt=f"t-SNE of the final features of {counted(len(stored), 'run')} on {counted(tasks, 'task')}.",
        wide=len(stored) > 1,
        narrow=partial(draw, narrow=True) if len(stored) > 1 else None,
    )


def draw_features(view: SuiteView, stored: Sequence[StoredFeatures], *, narrow: bool = False) -> Chart:
    """Draw a panel per run, task by task; two to a row, with the method below the task, if it is ``narrow``."""
    order = {task: place for place, task in enumerate(view.tasks)}
    ordered = sorted(stored, key=lambda each: order[each.task])
    widest = max(sum(each.task == task for each in ordered) for task in order)
    panels = tuple(_panel(view, each, narrow=narrow) for each in ordered)
    columns = panel_columns(len(panels), max(2, min(widest, 4)), narrow=narrow)
    return Chart(panels, 0, columns, wide=len(panels) > 1 and not narrow, footer=view.footer)


def _panel(view: SuiteView, stored: StoredFeatures, *, narrow: bool) -> Panel:
    points, labels = stored.embedded
    names = class_names(view.study, stored.arm, stored.task, int(np.max(stored.labels)) + 1)
    marks = tuple(
        _points(points[labels == number], names[number], colour, stored.arm.short_label)
        for number, colour in zip(np.unique(labels).tolist(), _COLOURS, strict=False)
    )
    task, method = task_name(stored.task), stored.arm.short_label
    title = f"{shortened(task, 20)}\n{shortened(method, 20)}" if narrow else shortened(f"{task}: {method}", 30)
    return Panel(_bare(points[:, 0]), _bare(points[:, 1]), marks, title)


def _points(points: NDArray[np.float64], name: str, colour: str, key: str) -> Points:
    xs, ys = points.T.tolist()
    return Points(xs, ys, colour, size=2.4, key=key, tips=(name,) * len(xs))


def _bare(values: NDArray[np.float64]) -> Axis:
    room = 0.06 * float(np.ptp(values)) or 1.0
    return Axis(float(np.min(values)) - room, float(np.max(values)) + room, grid=False, line=False)
