"""The robustness table: finished runs on other or corrupted images, beside their own test images."""

from __future__ import annotations

from collections.abc import Sequence

from shipbench.data.corruptions import SEVERITIES
from shipbench.report.analysis.cautions import foreign_records
from shipbench.report.analysis.comparisons import ALPHA, BETTER, WORSE
from shipbench.report.analysis.robustness import Shift
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import MISSING, Cell, Column, Row, Table
from shipbench.report.tables.common import BY_CLASS, name_cell
from shipbench.report.wording.names import corruption_name, task_name
from shipbench.report.wording.numbers import has_value, p_text, percent, signed
from shipbench.report.wording.text import seed_list, sentence_case, with_seeds

_CAPTION = (
    "Test accuracy in percent of finished runs on their own test images (clean) and on other or corrupted ones "
    "(shifted), mean over seeds and severities. p is that of the paired difference."
)
_EXACT = "exact sign-flip tests on the test images (McNemar's for one seed and severity)"
_MEANS = "sign-flip tests of the means of classes on the test images"
_WEIGHTS = "The weights are those after the last epoch."
_OTHER_IMAGES = f"{MISSING} other images than those of the run, which no test can pair."


def robustness_table(view: SuiteView) -> Table | None:
    """Return the table of evaluations; None if no run of the suite was evaluated."""
    if not view.shifts:
        return None
    several = len({shift.task for shift in view.shifts}) > 1
    tasks = [Column("task", "Task", align="left")] if several else []
    severities = tuple(f"severity {severity}" for severity in SEVERITIES)
    return Table(
        name=f"robustness-{view.slug}",
        title=f"{view.name}: other images and corruptions",
        caption=view.caption(_CAPTION, _details(view.shifts)),
        columns=(
            Column("method", "Method", align="left"),
            *tasks,
            Column("images", "Images", align="left"),
            Column("clean", "clean"),
            Column("shifted", "shifted", extras=severities),
            Column("difference", "difference", extras=("images won", "images lost")),
            Column("p", "p", keep=True),
        ),
        rows=tuple(_row(shift, several=several) for shift in view.shifts),
        notes=_notes(view.shifts),
        warnings=foreign_records(view.runs),
    )


def shift_name(shift: Shift) -> str:
    """Return the images of a shift in words, as in "blur, severity 1-5"."""
    name = corruption_name(shift.corruption)
    if shift.corruption:
        levels = seed_list(list(shift.by_severity))
        name = f"{name}, {'severity' if len(shift.by_severity) == 1 else 'severities'} {levels}"
    return ", ".join(filter(None, (shift.images, name)))


def _details(shifts: Sequence[Shift]) -> str:
    """Name the tests of ``shifts``, which are exact for accuracies over images, and their weights."""
    by_class = {shift.by_class for shift in shifts if shift.test is not None}
    if not by_class:
        return _WEIGHTS
    names = " or (tasks scored by class) ".join(_MEANS if each else _EXACT for each in sorted(by_class))
    tests = f"{sentence_case(names)}, with Holm's correction over all rows; each image counts once."
    return f"{tests} {_WEIGHTS}{BY_CLASS if True in by_class else ''}"


def _row(shift: Shift, *, several: bool) -> Row:
    difference, test = shift.shifted - shift.clean, shift.test
    outcome = (("images won", test.wins), ("images lost", test.losses)) if test else ()
    severities = tuple((f"severity {severity}", value) for severity, value in shift.by_severity.items() if severity)
    mark = (BETTER if difference > 0 else WORSE) if shift.adjusted < ALPHA else ""
    name = name_cell(shift.arm)
    return Row(
        (
            Cell(name.text, with_seeds(shift.seeds), name.value),
            *([Cell(task_name(shift.task), value=shift.task)] if several else []),
            Cell(shift_name(shift), value=shift_name(shift)),
            Cell(percent(shift.clean), value=shift.clean),
            Cell(percent(shift.shifted), value=shift.shifted, extras=severities),
            Cell(signed(difference), value=difference, extras=outcome, sign=mark),
            Cell(p_text(shift.adjusted) or MISSING, value=shift.adjusted if has_value(shift.adjusted) else None),
        )
    )


def _notes(shifts: Sequence[Shift]) -> tuple[str, ...]:
    notes = [f"{BETTER} better, {WORSE} worse than on clean images beyond chance at the 5 % level."]
    return (*notes, _OTHER_IMAGES) if any(shift.images for shift in shifts) else tuple(notes)
