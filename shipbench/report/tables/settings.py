"""The settings table: runs grouped for reading, one row per run in the CSV."""

from __future__ import annotations

from typing import Any

import pandas as pd

from shipbench.report.analysis.arms import configurations, origin_name
from shipbench.report.analysis.cautions import foreign_records
from shipbench.report.analysis.normalise import reading_order
from shipbench.report.analysis.study import Study
from shipbench.report.analysis.tuned import CHOSEN, CONFIRMED, SUPERSEDED
from shipbench.report.document import Cell, Column, Row, Table, text_cell
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import (
    component_name,
    method_name,
    method_order,
    setting_name,
    suite_beside,
    suite_order,
    task_list,
)
from shipbench.report.wording.numbers import setting
from shipbench.report.wording.text import joined, seed_list

_BY = ["suite", "method", "switches", "protocol", "tuning", "recipe", "backbone", "image_size", "origin", "settings"]
_TUNED = {
    CHOSEN: "chosen by tuning",
    CONFIRMED: "confirmed by tuning",
    SUPERSEDED: "chosen by an earlier tuning",
}
_LEADING = ("run_id", "origin", "status", "suite", "task", "method", "switches", "protocol", "tuning", "recipe", "seed")


def settings_table(study: Study) -> Table:
    """Return the settings of all records, with one row for runs that differ only in task and seed."""
    records = study.records
    configs = configurations(records)
    shared = dict(set.intersection(*map(set, configs))) if len(configs) else {}
    records = records.assign(
        settings=[" · ".join(_pair(k, v) for k, v in config if k not in shared) for config in configs]
    )
    groups = sorted(records.groupby(_BY, dropna=False, sort=False), key=lambda item: _order(item[0]))
    return Table(
        name="settings",
        title="Settings of every run",
        caption=caption(
            "Runs that differ only in task and seed share a row; the CSV has one row per run.", study.selection
        ),
        columns=(
            Column("method", "Method", align="left"),
            Column("tasks", "Tasks", align="left"),
            Column("seeds", "Seeds", align="left"),
            Column("runs", "Runs"),
            Column("made", "Protocol, recipe, backbone", align="left"),
            Column("settings", "Settings", align="left"),
        ),
        rows=tuple(_row(study, key, group) for key, group in groups),
        notes=_shared_note(shared),
        warnings=foreign_records(records),
        long=True,
        records=_per_run(study.records),
    )


def _pair(key: str, value: Any) -> str:
    return f"{setting_name(key)} {setting(value)}"


def _shared_note(shared: dict[str, Any]) -> tuple[str, ...]:
    pairs = " · ".join(_pair(key, value) for key, value in sorted(shared.items()))
    return (f"The same for every run: {pairs}.",) if pairs else ()


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    suite, method, switches = key[:3]
    return suite_order(suite), method_order(method), switches.count("+") + bool(switches), str(key[2:])


def _row(study: Study, key: tuple[Any, ...], group: pd.DataFrame) -> Row:
    suite, method, switches, protocol, tuning, recipe, backbone, size, origin, settings = key
    without = joined([component_name(switch, method) for switch in switches.split("+") if switch])
    name = f"{method_name(method)}, without {without}" if without else method_name(method)
    tasks = task_list(group["task"], study.tasks_of(suite))
    recipe, size = f"{recipe} recipe" if recipe else "", "" if pd.isna(size) else f"{size:g} px"
    made = [protocol, _TUNED.get(tuning, ""), recipe, backbone, size, origin_name(origin)]
    return Row(
        (
            text_cell(name),
            Cell(tasks, suite_beside(tasks, suite), tasks),
            text_cell(seed_list([int(seed) for seed in group["seed"]])),
            Cell(str(len(group)), value=len(group)),
            text_cell(", ".join(part for part in made if part)),
            text_cell(settings),
        )
    )


def _per_run(records: pd.DataFrame) -> pd.DataFrame:
    settings = sorted(name for name in records.columns if name.startswith("cfg."))
    names = [*_LEADING, "backbone", "backbone_sha256", "image_size", "precision", "device", *settings]
    return records.loc[reading_order(records), names]
