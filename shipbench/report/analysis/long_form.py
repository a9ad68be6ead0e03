"""Results in long form: one row per run, in a fixed order, with unrounded fractions."""

from __future__ import annotations

from typing import get_args

import pandas as pd

from shipbench.record import Topic, record_columns
from shipbench.report.analysis.normalise import reading_order
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import setting_name
from shipbench.report.wording.numbers import setting

# What identifies a run and its score, with columns that the analysis adds; the rest of the record follows.
_LEADING = (
    "run_id",
    "suite",
    "group",
    "task",
    "method",
    "arm",
    "switches",
    "changes",
    "protocol",
    "tuning",
    "recipe",
    "seed",
    "status",
    "selection",
    "accuracy",
)


def _column_names() -> list[str]:
    """Return the columns of the long form: the leading ones, then those of the record, topic by topic."""
    by_topic = sorted(record_columns(), key=lambda column: get_args(Topic).index(column.topic))
    record = [column.name for column in by_topic if column.long_form]
    return list(dict.fromkeys([*_LEADING, *record]))


def long_form(study: Study) -> pd.DataFrame:
    """Return one row per run; ``accuracy`` is the score chosen by the selection rule, NaN if it chooses none.

    ``arm`` names the table rows that the run counts in, ``changes`` the settings that set that arm apart, and
    ``tuning`` how a tuning bears on the run: chosen, confirmed, superseded or empty.
    """
    changes = study.by_record({arm.key: _changes(arm.changes) for arm in study.arms})
    frame = study.records.assign(arm=study.labels, changes=changes, selection=study.selection.name)
    return frame.loc[reading_order(frame), _column_names()].reset_index(drop=True)


def _changes(pairs: tuple[tuple[str, object], ...]) -> str:
    return "; ".join(f"{setting_name(key)}={setting(value)}" for key, value in pairs)
