"""Normalise records for a report: every column is present and has one type."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from shipbench.errors import InputError
from shipbench.record import IMPORTED, Column, record_columns
from shipbench.report.analysis.data_versions import data_versions
from shipbench.report.wording.names import method_order, suite_order, switch_order, task_order
from shipbench.report.wording.text import printable
from shipbench.runtime.json_text import parse_json
from shipbench.tasks import SUITES, TASKS, canonical_name

# Weights and bias of a linear head on the 768 features of ViT-B/16.
_HEAD_PER_CLASS = 769
# What decides how a backbone is loaded, and the facts that a run takes from the loaded one.
_REQUEST = ("suite", "method", "recipe", "backbone", "origin", "kind")
_LOADED = ("backbone_sha256", "image_size", "cfg.image_size", "cfg.mean", "cfg.std")
HISTORY_COLUMNS = ("run_id", "epoch", "split", "loss", "accuracy", "learning_rate")


def uniform_records(results: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of ``results`` that has every column of a record, each with one type.

    Texts are strings without control characters, numbers are floats (NaN if unknown) and seeds integers. Raises
    ``InputError`` if a column that a report requires is absent, a seed is not a number, or an accuracy lies outside
    [0, 1].
    """
    _check_columns(results)
    frame = results.reset_index(drop=True).copy()
    columns = {column.name: _uniform(frame, column) for column in record_columns() if column.name != "seed"}
    frame = _with_unknown_sizes(frame.assign(**columns, seed=_seeds(frame)))
    _check_fractions(frame)
    switches = [_ordered_switches(*row) for row in zip(frame["switches"], frame["method"], strict=True)]
    tasks = [_catalogue_name(*row) for row in zip(frame["task"], frame["suite"], strict=True)]
    frame = frame.assign(task=tasks, switches=switches)
    facts = frame[["task", "suite", "source", "kind"]].itertuples(index=False, name=None)
    catalogued = [_is_catalogued(*row) for row in facts]
    named = frame.assign(
        data_version=data_versions(frame, catalogued),
        suite=[_suite(*row) for row in zip(frame["task"], frame["suite"], catalogued, strict=True)],
        group=[_group(*row) for row in zip(frame["task"], frame["group"], catalogued, strict=True)],
    )
    # pandas warns of frames with more than a hundred columns that were assigned one by one; a copy joins them.
    return named.copy()


def _with_unknown_sizes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` with NaN for the sizes that records do not state, which they hold as zeros.

    A count of 0 without the head is known if the head holds all parameters, as that of a linear probe does.
    """
    imported, failed = frame["kind"] == IMPORTED, frame["status"] != "done"
    with_head, without = frame["trainable_params"], frame["trainable_params_without_head"]
    only_head = (with_head > 0) & (with_head == _HEAD_PER_CLASS * frame["num_classes"])
    return frame.assign(
        image_size=frame["image_size"].mask((imported | failed) & (frame["image_size"] == 0)),
        trainable_params=with_head.mask(imported & (with_head == 0)),
        trainable_params_without_head=without.mask(imported & (without == 0) & ~only_head),
        # Every model has parameters and takes memory.
        total_params=frame["total_params"].mask(frame["total_params"] == 0),
        peak_memory_bytes=frame["peak_memory_bytes"].mask(frame["peak_memory_bytes"] == 0),
    )


def with_facts_of_failed(records: pd.DataFrame, others: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return ``records`` in which a run that failed before its backbone was loaded has the facts of a run like it.

    Those are its image size and normalisation, in its settings too, and the hash of its weights if planning did not
    know it. Runs like it are sought in ``records`` and in ``others``. A run that is like no other keeps what it has.
    """
    if (records["status"] == "done").all():
        return records
    names = [name for name in _LOADED if name in records.columns]
    runs = _backbone_facts(records, names)
    if not any(run.failed_early for run in runs):
        return records
    donors: dict[tuple[Any, ...], list[_BackboneFacts]] = defaultdict(list)
    for run in [*runs, *([] if others is None else _backbone_facts(others, names))]:
        if not run.failed_early:
            donors[run.request].append(run)
    columns = {name: records[name].tolist() for name in (*names, "config")}
    for i, run in enumerate(runs):
        alike = [donor for donor in donors[run.request] if run.agrees_with(donor)] if run.failed_early else []
        if alike:
            donor = max(alike, key=lambda donor: donor.task == run.task)
            columns["config"][i] = _completed_config(run, donor)
            for name in run.lacks:
                columns[name][i] = donor.values[name]
    # Two frames may keep a setting in columns of different types.
    kinds = {name: records[name].dtype if others is None else object for name in columns}
    filled = {name: pd.Series(values, records.index, kinds[name]) for name, values in columns.items()}
    return records.assign(**filled)


def reading_order(records: pd.DataFrame) -> list[int]:
    """Return the index of ``records`` sorted by suite, method, switches, task, seed and run id."""
    names = ["suite", "method", "switches", "task", "seed", "run_id"]
    keys = {
        index: (suite_order(suite), method_order(method), switches, task_order(task), seed, run_id)
        for index, suite, method, switches, task, seed, run_id in records[names].itertuples(name=None)
    }
    return sorted(keys, key=keys.__getitem__)


def uniform_history(history: pd.DataFrame | None) -> pd.DataFrame:
    """Return ``history`` with exactly ``HISTORY_COLUMNS``, empty if there is no history."""
    frame = pd.DataFrame() if history is None else history
    return frame.reindex(columns=list(HISTORY_COLUMNS))


def json_list(text: str) -> list[Any]:
    """Return the JSON list in a record's text, or an empty list if the text holds none."""
    value = _json(text)
    return value if isinstance(value, list) else []


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object in a record's text, or an empty one if the text holds none."""
    value = _json(text)
    return value if isinstance(value, dict) else {}


def _json(text: str) -> Any:
    try:
        return parse_json(text) if text else None
    except ValueError:
        return None


@dataclass(frozen=True)
class _BackboneFacts:
    """What decides how a run loads its backbone, and the facts of the loaded one by column, empty if unknown.

    ``values`` are those that the facts are texts of, ``config`` all settings as JSON.
    """

    request: tuple[Any, ...]
    status: str
    task: str
    overrides: str
    config: str
    values: Mapping[str, Any]
    facts: Mapping[str, str]

    @property
    def lacks(self) -> list[str]:
        """The columns whose facts are unknown."""
        return [name for name, fact in self.facts.items() if not fact]

    @property
    def failed_early(self) -> bool:
        """Whether the run failed before all facts were known."""
        return self.status != "done" and bool(self.lacks)

    def agrees_with(self, other: _BackboneFacts) -> bool:
        """Return whether ``other`` has all facts that this run has, and changed by hand none that this run lacks."""
        if any(f", {name.removeprefix('cfg.')}=" in f", {other.overrides}" for name in self.lacks):
            return False
        return all(not fact or fact == other.facts[name] for name, fact in self.facts.items())


def _backbone_facts(records: pd.DataFrame, names: Sequence[str]) -> list[_BackboneFacts]:
    requests = records[list(_REQUEST)].itertuples(index=False, name=None)
    texts = records[["status", "task", "overrides", "config"]].itertuples(index=False, name=None)
    rows = records.reindex(columns=list(names)).itertuples(index=False, name=None)
    facts = (dict(zip(names, row, strict=True)) for row in rows)
    return [
        _BackboneFacts(request, status, task, overrides, config, values, {n: _fact(v) for n, v in values.items()})
        for request, (status, task, overrides, config), values in zip(requests, texts, facts, strict=True)
    ]


def _completed_config(run: _BackboneFacts, donor: _BackboneFacts) -> str:
    """Return the settings of ``run`` as JSON with those of ``donor`` that it lacks."""
    settings = json_object(donor.config)
    names = (name.removeprefix("cfg.") for name in run.lacks if name.startswith("cfg."))
    taken = {name: settings[name] for name in names if name in settings}
    return json.dumps({**json_object(run.config), **taken}, sort_keys=True) if taken else run.config


def _fact(value: Any) -> str:
    """Return a value as text, empty if it is unknown: absent, an empty text or 0."""
    if value is None or value is pd.NA or (isinstance(value, (int, float, str)) and (value != value or not value)):
        return ""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _check_columns(results: pd.DataFrame) -> None:
    required = [column.name for column in record_columns() if "report" in column.required_by]
    absent = [name for name in required if name not in results.columns]
    if absent:
        raise InputError(f"the records have no column {absent[0]!r}; a report needs {', '.join(required)}")


def _uniform(frame: pd.DataFrame, column: Column) -> pd.Series[Any]:
    return _text(frame, column.name, column.assumed) if column.kind == "str" else _number(frame, column.name)


def _text(frame: pd.DataFrame, name: str, default: str) -> pd.Series[str]:
    if name not in frame.columns:
        return pd.Series(default, index=frame.index, dtype=object)
    values = frame[name].astype(object)
    texts = values.where(values.notna(), default)
    return texts.map(lambda value: printable(str(value)) or default).astype(object)


def _number(frame: pd.DataFrame, name: str) -> pd.Series[float]:
    if name not in frame.columns:
        return pd.Series(float("nan"), index=frame.index)
    return pd.to_numeric(frame[name], errors="coerce").astype(float)


def _seeds(frame: pd.DataFrame) -> pd.Series[int]:
    seeds = pd.to_numeric(frame["seed"], errors="coerce")
    if seeds.isna().any():
        run = frame.loc[seeds.isna(), "run_id"].iloc[0]
        raise InputError(f"run {run} has no whole number as its seed; every record needs one")
    return seeds.astype(int)


def _check_fractions(frame: pd.DataFrame) -> None:
    for column in record_columns():
        if column.unit != "fraction":
            continue
        values = frame[column.name]
        wrong = frame[(values < 0) | (values > 1)]
        if len(wrong):
            run, value = wrong["run_id"].iloc[0], wrong[column.name].iloc[0]
            raise InputError(f"run {run} has {column.name} {value:g}; accuracies in records are fractions from 0 to 1")


def _ordered_switches(switches: str, method: str) -> str:
    names = {part.strip() for part in switches.replace(",", "+").split("+") if part.strip()}
    return "+".join(sorted(names, key=lambda name: switch_order(name, method)))


@cache
def _catalogue_name(task: str, suite: str) -> str:
    """Return the catalogue's name of a task; other harnesses write those of a suite in cases of their own."""
    if canonical_name(task) in TASKS:
        return canonical_name(task)
    names = {alias.lower(): known for known in TASKS.values() if known.suite == suite for alias in known.folder_names}
    return names[task.lower()].name if task.lower() in names else task


def _suite(task: str, suite: str, catalogued: bool) -> str:
    """Return the catalogue's suite of a task; a task outside the catalogue never counts in a catalogued suite."""
    if catalogued:
        return TASKS[task].suite
    return "other" if suite in ("", *(known.name for known in SUITES)) else suite


def _group(task: str, group: str, catalogued: bool) -> str:
    return TASKS[task].group if catalogued else group or "Other"


def _is_catalogued(task: str, suite: str, source: str, kind: str) -> bool:
    """Return whether a record is of the catalogue's task and not of other data with its name.

    These are tasks of the user, and what other harnesses call by the name: their records state the suite.
    """
    if task not in TASKS or source not in ("", TASKS[task].source):
        return False
    return kind != IMPORTED or suite == TASKS[task].suite
