"""The settings table: runs grouped for reading, one row per run in the CSV."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from shipbench.counts import counted
from shipbench.report.analysis.arms import IDENTITY, origin_name
from shipbench.report.analysis.cautions import foreign_records
from shipbench.report.analysis.configurations import configurations
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

_BY = [*IDENTITY, "tuning", "settings"]
_TUNED = {
    CHOSEN: "chosen by tuning",
    CONFIRMED: "confirmed by tuning",
    SUPERSEDED: "chosen by an earlier tuning",
}
_LEADING = ("run_id", "origin", "status", "suite", "task", "method", "switches", "protocol", "tuning", "recipe", "seed")
_MADE = ("shots", "backbone", "backbone_sha256", "image_size", "reference", "precision", "device")


def settings_table(study: Study) -> Table:
    """Return the settings of all records, with one row for runs that differ only in task and seed."""
    records = study.records
    configs = configurations(records)
    shared = dict(set.intersection(*map(set, configs))) if len(configs) else {}
    records = records.assign(
        settings=[" · ".join(_pair(k, v) for k, v in config if k not in shared) for config in configs],
        shots=records["shots"].fillna(0).astype(int),
    )
    groups = sorted(records.groupby(_BY, dropna=False, sort=False), key=lambda item: _order(item[0]))
    kinds = [dict(zip(_BY, key, strict=True)) for key, _ in groups]
    made = _made(kinds)
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
        rows=tuple(_row(study, kinds[i], made[i], group) for i, (_, group) in enumerate(groups)),
        notes=_shared_note(shared),
        warnings=foreign_records(records),
        long=True,
        records=_per_run(records),
    )


def _pair(key: str, value: Any) -> str:
    return f"{setting_name(key)} {setting(value)}"


def _shared_note(shared: dict[str, Any]) -> tuple[str, ...]:
    pairs = " · ".join(_pair(key, value) for key, value in sorted(shared.items()))
    return (f"The same for every run: {pairs}.",) if pairs else ()


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    suite, method, switches = key[:3]
    parts = switches.count("+") + bool(switches)
    return suite_order(suite), method_order(method), parts, key[_BY.index("shots")], str(key[2:])


def _row(study: Study, kind: Mapping[str, Any], made: str, group: pd.DataFrame) -> Row:
    method, suite = kind["method"], kind["suite"]
    without = joined([component_name(switch, method) for switch in kind["switches"].split("+") if switch])
    name = f"{method_name(method)}, without {without}" if without else method_name(method)
    tasks = task_list(group["task"], study.tasks_of(suite))
    return Row(
        (
            text_cell(name),
            Cell(tasks, suite_beside(tasks, suite), tasks),
            text_cell(seed_list([int(seed) for seed in group["seed"]])),
            Cell(str(len(group)), value=len(group)),
            text_cell(made),
            text_cell(kind["settings"]),
        ),
        # The first cell names the method alone, so hiding a row of the main table hides none of these.
        "settings",
    )


def _made(kinds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name how the runs of each kind were made; weights and references only where alike kinds differ in them."""
    present: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for kind in kinds:
        for scope, text in _origins(kind).items():
            present[scope].add(text)
    return [
        ", ".join(
            part
            for part in (
                kind["protocol"],
                _TUNED.get(kind["tuning"], ""),
                counted(kind["shots"], "shot") if kind["shots"] else "",
                f"{kind['recipe']} recipe" if kind["recipe"] else "",
                kind["backbone"],
                "" if pd.isna(kind["image_size"]) else f"{kind['image_size']:g} px",
                origin_name(kind["origin"]),
                *(text for scope, text in _origins(kind).items() if len(present[scope]) > 1),
            )
            if part
        )
        for kind in kinds
    ]


def _origins(kind: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """Return weights and reference as texts, by the scope in which they may differ."""
    digest = kind["backbone_sha256"]
    weights: dict[tuple[str, ...], str] = {("weights", kind["backbone"]): f"weights {digest[:8]}"} if digest else {}
    return {**weights, ("reference", kind["method"], kind["origin"]): kind["reference"]}


def _per_run(records: pd.DataFrame) -> pd.DataFrame:
    settings = sorted(name for name in records.columns if name.startswith("cfg."))
    return records.loc[reading_order(records), [*_LEADING, *_MADE, *settings]]
