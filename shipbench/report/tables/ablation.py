"""The ablation table: which parts are on, the means, and the paired difference to the full method."""

from __future__ import annotations

from collections.abc import Sequence

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import cautions
from shipbench.report.analysis.differences import Ablation, PairedDifference, paired_difference
from shipbench.report.analysis.study import Study
from shipbench.report.document import MISSING, Cell, Column, Row, Table
from shipbench.report.tables.common import (
    SCORE_EXTRAS,
    arm_seeds,
    empty_mean,
    label_cell,
    marked,
    mean_over_tasks,
    millions_cell,
    score_cell,
)
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import (
    MEAN_OF_GROUPS,
    MEAN_OF_TASKS,
    component_name,
    method_name,
    suite_name,
    switch_order,
)
from shipbench.report.wording.numbers import known, signed
from shipbench.report.wording.text import counted, slug, with_seeds

ON, OFF = "✓", MISSING
_CAPTION = (
    "Ablation of {method} on {suite}: test accuracy in percent, mean over seeds with the sample deviation below. "
    "{on} part on, {off} part off. The difference to full {method} is in percentage points, paired over the tasks "
    "and seeds that both have, with its 95 % Student t interval below ({over}). Best bold, second underlined."
)


def ablation_table(study: Study, suite: str, ablation: Ablation, number: int = 0) -> Table:
    """Return the table of one ablation; ``number`` tells several of one suite apart."""
    arms = [*([ablation.full] if ablation.full else []), *ablation.ablated]
    switches = sorted({switch for arm in arms for switch in arm.switches}, key=switch_order)
    columns = _columns(study, suite, switches)
    first = 1 + len(switches)
    rows = [_row(study, arm, ablation, switches) for arm in arms]
    method = method_name(arms[0].method)
    name = f"ablation-{slug(suite)}" + (f"-{number + 1}" if number else "")
    return Table(
        name=name,
        title=f"{suite_name(suite)}: what each part of {method} adds",
        caption=caption(
            _CAPTION.format(
                method=method, suite=suite_name(suite), on=ON, off=OFF, over=interval_over(study, ablation)
            ),
            study.selection,
            suite,
        ),
        columns=columns,
        rows=tuple(marked(rows, range(first, first + len(study.groups_of(suite)) + 2))),
        notes=() if ablation.full else ("The full method was not run in this setup: no differences.",),
        warnings=cautions(study.runs_of(arms)),
    )


def interval_over(study: Study, ablation: Ablation) -> str:
    """Say what the intervals vary over, with their numbers of tasks and seeds."""
    found = [difference_to_full(study, arm, ablation) for arm in ablation.ablated]
    kinds = sorted({f"over {d.over}" for d in found if d is not None and known(d.interval.low)})
    return " or ".join(kinds) if kinds else "none: too few runs"


def difference_to_full(study: Study, arm: Arm, ablation: Ablation) -> PairedDifference | None:
    """Return the arm's paired difference to the full method; None without a full arm or a shared run."""
    if ablation.full is None or arm == ablation.full:
        return None
    found = paired_difference(study.accuracies(arm), study.accuracies(ablation.full))
    return found if found.tasks else None


def _columns(study: Study, suite: str, switches: Sequence[str]) -> tuple[Column, ...]:
    return (
        Column("method", "Method", align="left"),
        *(Column(switch, component_name(switch), "Parts", align="center", upright=True) for switch in switches),
        *(Column(group, group, "Means", extras=SCORE_EXTRAS) for group in study.groups_of(suite)),
        Column(MEAN_OF_GROUPS, MEAN_OF_GROUPS, "Means", extras=SCORE_EXTRAS),
        Column(MEAN_OF_TASKS, MEAN_OF_TASKS, "Means", extras=SCORE_EXTRAS),
        Column("difference", "mean over tasks", "Difference to full", extras=("low", "high", "tasks", "seeds")),
        Column("pairs", "paired over", "Difference to full", align="left"),
        Column("trainable_params", "Trainable (M)"),
    )


def _row(study: Study, arm: Arm, ablation: Ablation, switches: Sequence[str]) -> Row:
    summary, seeds = study.summary(arm), arm_seeds(study, arm)
    marks = [ON if switch not in arm.switches else OFF for switch in switches]
    means = [*summary.groups.values(), summary.mean_of_groups, summary.mean_of_tasks]
    runs = study.runs_of([arm])
    return Row(
        (
            label_cell(study, arm),
            *(Cell(mark, value=int(mark == ON)) for mark in marks),
            *(empty_mean(score_cell(score, seeds)) for score in means),
            *_difference_cells(difference_to_full(study, arm, ablation)),
            millions_cell(mean_over_tasks(runs, "trainable_params")),
        )
    )


def _difference_cells(found: PairedDifference | None) -> tuple[Cell, Cell]:
    if found is None:
        return Cell(), Cell()
    ends = found.interval
    below = f"[{signed(ends.low)}, {signed(ends.high)}]" if known(ends.low) else ""
    extras = (
        ("low", ends.low if known(ends.low) else None),
        ("high", ends.high if known(ends.high) else None),
        ("tasks", len(found.tasks)),
        ("seeds", len(found.seeds)),
    )
    pairs = counted(len(found.tasks), "task")
    return (
        Cell(signed(ends.mean), below, ends.mean if known(ends.mean) else None, extras),
        Cell(pairs, with_seeds(found.seeds), f"{pairs}, {with_seeds(found.seeds)}"),
    )
