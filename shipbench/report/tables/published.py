"""Published rows under the main table: their cells, the differences to ours, and their footnotes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

import pandas as pd

from shipbench.published import PublishedRow
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.published import BACKBONES, IMAGE_SIZE, PublishedMatch, published_means
from shipbench.report.analysis.study import Summary, summarise
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import MISSING, Cell, Row
from shipbench.report.tables.common import millions_cell
from shipbench.report.tables.part_means import part_cells
from shipbench.report.wording.numbers import has_value, percent, signed
from shipbench.report.wording.text import joined


def published_rows(view: SuiteView, arms: Collection[Arm]) -> list[Row]:
    """Return every published row followed by the differences of those of ``arms`` that are comparable to it."""
    letters = _letters(_sources(view))
    rows: list[Row] = []
    for match in view.published_matches:
        printed = summarise(pd.DataFrame([published_means(match.row, view.groups)], index=[0]), view.groups)
        rows.append(_published_row(view, match, letters[_source(match.row)], printed, rule=not rows))
        shown = [arm for arm in match.comparable if arm in arms]
        rows += [_difference_row(view, arm, printed, alone=len(match.arms) == 1) for arm in shown]
    return rows


def published_notes(view: SuiteView) -> list[str]:
    """Return the notes of the published rows: arms that are not comparable, then a footnote per source."""
    incomparable = _incomparable_notes(view.published_matches)
    footnotes = [f"[{letter}] {source}" for source, letter in _letters(_sources(view)).items()]
    return [*incomparable, *footnotes]


def _published_row(view: SuiteView, match: PublishedMatch, letter: str, printed: Summary, *, rule: bool) -> Row:
    label = Cell(f"{match.row.method}, published [{letter}]", value=f"{match.row.method} (published)")
    cells = [
        Cell(percent(value) or MISSING, value=value if has_value(value) else None) for value in printed.all_means()
    ]
    return Row((label, *cells, *part_cells(view), *_parameter_cells(match.row)), "published", rule)


def _parameter_cells(row: PublishedRow) -> tuple[Cell, Cell]:
    """Return the published count with and without the head; blank unless the paper states whether it has the head."""
    count = row.trainable_params_millions
    cell = millions_cell(count * 1e6) if count is not None else Cell()
    return (cell if row.params_include_head is True else Cell()), (cell if row.params_include_head is False else Cell())


def _difference_row(view: SuiteView, arm: Arm, printed: Summary, *, alone: bool) -> Row:
    pairs = zip(view.study.summary(arm).all_means(), printed.all_means(), strict=True)
    differences = [ours - theirs for ours, theirs in pairs]
    cells = [Cell(signed(value), value=value if has_value(value) else None) for value in differences]
    text = "ours − published"  # noqa: RUF001
    label = Cell(text if alone else f"{text}: {arm.label}", value=f"{arm.label}: ours minus published")
    return Row((label, *cells, *part_cells(view), Cell(), Cell()), "difference")


def _incomparable_notes(matches: Sequence[PublishedMatch]) -> Iterator[str]:
    """Return a note for each backbone of published rows on the arms that are not comparable with them."""
    arms: dict[str, set[str]] = defaultdict(set)
    for match in matches:
        arms[match.row.backbone] |= {arm.label for arm in match.arms if arm not in match.comparable}
    for backbone, labels in arms.items():
        if labels:
            yield (
                f"No difference to the published numbers for {joined(sorted(labels))}: these published rows use "
                f"{backbone} ({BACKBONES[backbone]}), images of {IMAGE_SIZE} pixels and all training images of a task, "
                "and these runs differ in one or more of these."
            )


def _sources(view: SuiteView) -> list[str]:
    return list(dict.fromkeys(_source(match.row) for match in view.published_matches))


def _source(row: PublishedRow) -> str:
    """Return the footnote of a published row: paper, backbone, protocol and inconsistencies in print."""
    protocol = f"; protocol: {row.protocol}" if row.protocol else ""
    unclear = f"; inconsistent in print: {', '.join(row.inconsistencies)}" if row.inconsistencies else ""
    return f"{row.paper}, {row.venue} {row.year}; {row.backbone}{protocol}{unclear}."


def _letters(sources: Sequence[str]) -> dict[str, str]:
    """Return a footnote letter for every source: a to z, then aa, ab and so on."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return {source: ("" if i < 26 else alphabet[i // 26 - 1]) + alphabet[i % 26] for i, source in enumerate(sources)}
