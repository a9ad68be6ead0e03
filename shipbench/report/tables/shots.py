"""The few-shot table: mean accuracy by number of training images per class."""

from __future__ import annotations

from shipbench.report.analysis.shots import MEAN, FewShots, ShotsFamily, shots_name
from shipbench.report.analysis.study import NO_SCORE
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Cell, Column, Row, Table, joint_key
from shipbench.report.tables.common import DEVIATION_BELOW, SCORE_EXTRAS, fewer_seeds_note, marked, score_cell
from shipbench.report.wording.names import task_name
from shipbench.report.wording.text import with_seeds
from shipbench.statistics import mean_of_tasks_name


def shots_table(view: SuiteView) -> Table | None:
    """Return accuracies by number of shots; None unless a method has runs for several numbers of shots."""
    few = view.few_shots
    if few is None:
        return None
    over = task_name(few.tasks[0]) if len(few.tasks) == 1 else mean_of_tasks_name(few.tasks, view.tasks)
    rows = [_row(family, few) for family in few.families]
    return Table(
        name=f"shots-{view.slug}",
        title=f"{view.name}: accuracy by number of shots",
        caption=view.caption(
            f"Test accuracy in percent by number of training images per class ({over})"
            f"{view.over_seeds(DEVIATION_BELOW)}. Best in bold, second best underlined, as printed.",
            "The seed decides which images are drawn; a larger number of shots contains the smaller ones.",
        ),
        columns=(
            Column("method", "Method", align="left"),
            *(
                Column(f"shots {shots_name(number)}", shots_name(number), "Images per class", extras=SCORE_EXTRAS)
                for number in few.shots
            ),
        ),
        rows=tuple(marked(rows, range(1, len(few.shots) + 1))),
        # Many images may have been planned with fewer seeds than few images.
        notes=fewer_seeds_note(rows, "the row has over all numbers of shots"),
        warnings=view.cautions,
    )


def _row(family: ShotsFamily, few: FewShots) -> Row:
    means = family.scores[MEAN]
    seeds = sorted({seed for score in means.values() for seed in score.seeds})
    cells = [score_cell(means.get(number, NO_SCORE), seeds) for number in few.shots]
    return Row((Cell(family.name, with_seeds(seeds), family.name), *cells), key=joint_key(family.arms))
