"""The ablation table: which parts are on, the means, and the paired difference to the full method."""

from __future__ import annotations

from collections.abc import Sequence

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import cautions
from shipbench.report.analysis.differences import (
    Ablation,
    PairedDifference,
    difference_to_full,
    interval_over,
    notes_on_changed,
)
from shipbench.report.analysis.study import mean_over_tasks
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import MISSING, Cell, Column, Row, Table, distinct
from shipbench.report.tables.common import (
    DEVIATION_BELOW,
    MILLION,
    evenly,
    fewer_seeds_note,
    label_cell,
    marked,
    mean_cells,
    mean_columns,
    millions_cell,
)
from shipbench.report.wording.names import component_name, method_name, setting_name, switch_order
from shipbench.report.wording.numbers import has_value, setting, signed
from shipbench.report.wording.text import joined, with_seeds

ON, OFF = "✓", MISSING
_CAPTION = (
    "Test accuracy in percent{seeds}; {on} part on, {off} part off. The "
    "difference to full {method} is in percentage points with its 95 % Student t interval ({over})."
)
_DETAILS = "Differences are paired over shared tasks and seeds. Best in bold, second best underlined."


def ablation_table(view: SuiteView, ablation: Ablation) -> Table:
    """Return the table of one ablation."""
    arms = [*([ablation.full] if ablation.full else []), *ablation.ablated]
    switches = _switches(arms)
    rows = [_row(view, arm, ablation, switches) for arm in arms]
    columns = _columns(view, switches, arms[0].method)
    first_mean = 1 + len(switches)
    method, over = method_name(arms[0].method), interval_over(view.study, ablation)
    seeds = view.over_seeds(DEVIATION_BELOW, arms)
    return Table(
        name=f"ablation-{view.slug}{ablation.suffix}",
        title=f"{view.name}: what each part of {method} adds",
        caption=view.caption(_CAPTION.format(method=method, on=ON, off=OFF, over=over, seeds=seeds), _DETAILS),
        columns=columns,
        rows=tuple(
            evenly(marked(rows, range(first_mean, first_mean + len(view.groups) + 2)), {len(columns) - 1: MILLION})
        ),
        notes=(*_notes(view, ablation), *fewer_seeds_note(rows)),
        warnings=cautions(view.study.runs_of(arms)),
    )


def _notes(view: SuiteView, ablation: Ablation) -> tuple[str, ...]:
    if ablation.full is None:
        return ("The full method was not run in this setup, so there are no differences.",)
    changes = [f"{setting_name(key)} {setting(value)}" for key, value in ablation.full.changes]
    same = (f"All rows have {joined(changes)}.",) if changes else ()
    return (*same, *notes_on_changed(view.study, ablation))


def _switches(arms: Sequence[Arm]) -> list[str]:
    method = arms[0].method
    switches = {switch for arm in arms for switch in arm.switches}
    return sorted(switches, key=lambda switch: switch_order(switch, method))


def _columns(view: SuiteView, switches: Sequence[str], method: str) -> tuple[Column, ...]:
    parts = [
        Column(switch, component_name(switch, method), "Parts", align="center", upright=True, kind="part")
        for switch in switches
    ]
    difference = (
        Column("difference", "mean over tasks", "Difference to full", extras=("low", "high", "tasks", "seeds")),
        Column("pairs", "paired over", "Difference to full", align="left"),
    )
    method_column, size = Column("method", "Method", align="left"), Column("trainable_params", "Trainable (M)")
    return distinct((method_column, *parts, *mean_columns(view), *difference, size))


def _row(view: SuiteView, arm: Arm, ablation: Ablation, switches: Sequence[str]) -> Row:
    study = view.study
    marks = [ON if switch not in arm.switches else OFF for switch in switches]
    return Row(
        (
            label_cell(study, arm),
            *(Cell(mark, value=int(mark == ON)) for mark in marks),
            *mean_cells(study.summary(arm), study.seeds_of(arm)),
            *_difference_cells(difference_to_full(study, arm, ablation)),
            millions_cell(mean_over_tasks(study.runs_of([arm]), "trainable_params")),
        )
    )


def _difference_cells(difference: PairedDifference | None) -> tuple[Cell, Cell]:
    if difference is None:
        return Cell(), Cell()
    interval = difference.interval
    below = f"[{signed(interval.low)}, {signed(interval.high)}]" if has_value(interval.low) else ""
    extras = (
        ("low", interval.low if has_value(interval.low) else None),
        ("high", interval.high if has_value(interval.high) else None),
        ("tasks", len(difference.tasks)),
        ("seeds", len(difference.seeds)),
    )
    pairs, seeds = counted(len(difference.tasks), "task"), with_seeds(difference.seeds)
    return (
        Cell(signed(interval.mean), below, interval.mean if has_value(interval.mean) else None, extras),
        Cell(pairs, seeds, f"{pairs}, {seeds}"),
    )
