"""How often two methods give an image the same class, whether or not it is the right one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from shipbench.report.analysis.agreement import Agreement
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import Study
from shipbench.report.document import Cell, Column, Row, Table, text_cell
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import suite_name
from shipbench.report.wording.numbers import percent
from shipbench.report.wording.text import counted, slug

_CAPTION = (
    "{suite}: share of test images, in percent, that two methods give the same class after the last epoch: mean over "
    "the seeds that both have, then over the tasks that both were run on. On the diagonal, a method with itself over "
    "pairs of its own seeds."
)


def agreement_table(study: Study, suite: str, found: Agreement, gaps: Sequence[str] = ()) -> Table | None:
    """Return the lower triangle of agreements; None for fewer than two arms with predictions; ``gaps`` are notes."""
    arms = [arm for arm in study.arms_of(suite, main=True) if any(arm.key in pair for pair in found)]
    if len(arms) < 2:
        return None
    return Table(
        name=f"agreement-{slug(suite)}",
        title=f"{suite_name(suite)}: agreement of predictions",
        caption=caption(_CAPTION.format(suite=suite_name(suite)), study.selection, suite),
        columns=(
            Column("method", "Method", align="left"),
            *(Column(arm.label, arm.label, upright=len(arms) > 4, extras=("tasks",)) for arm in arms),
        ),
        rows=tuple(_row(arm, arms, found) for arm in arms),
        notes=tuple(gaps),
    )


def _row(arm: Arm, arms: Sequence[Arm], found: Agreement) -> Row:
    return Row((text_cell(arm.label), *(_cell(found.get((arm.key, other.key), {})) for other in arms)))


def _cell(tasks: Mapping[str, float]) -> Cell:
    if not tasks:
        return Cell(extras=(("tasks", 0),))
    mean = 100 * fmean(tasks.values())
    return Cell(percent(mean), counted(len(tasks), "task"), mean, (("tasks", len(tasks)),))
