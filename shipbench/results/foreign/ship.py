"""The official SHIP repository: ``log.txt`` of a run, and ``results_summary.txt`` with the best run of each task."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shipbench.results.foreign.json_logs import final_and_best, number_in_config_name, read_json_log
from shipbench.results.foreign.result import (
    BACKBONE_PARAMETERS,
    VTAB,
    ForeignResult,
    Harness,
    Naming,
    Reading,
    Skipped,
)
from shipbench.results.foreign.tasks import vtab_task
from shipbench.results.foreign.text import number, percent, read_text, read_yaml, whole

_SUMMARY = "results_summary.txt"
_BLOCK = re.compile(
    r"Max accuracy found: (?P<accuracy>[\d.]+)\s*\n"
    r"Log file path: (?P<path>.+?)\s*\n"
    r"Details: .*?n_parameters=(?P<parameters>\d+), prompt_indices=(?P<levels>\[[^\]]*\])"
)
_IN_PATH = re.compile(
    r"_(?P<lr>[\d.e-]+)_(?P<wd>[\d.e-]+)_[a-z0-9]+_(?P<threshold>[\d.]+)_K(?P<length>\d+)", re.IGNORECASE
)
_CHOSEN_ON_TEST = "the best of all settings, runs and epochs, chosen by test accuracy"


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    yield from _summary(path, naming) if path.name == _SUMMARY else _log(path, naming)


def _log(path: Path, naming: Naming) -> Iterator[Reading]:
    log = read_json_log(path)
    config = {**read_yaml(path.with_name("config.yaml")), **log.arguments}
    outcome = final_and_best(path, log, whole(config.get("epochs")))
    if isinstance(outcome, Skipped):
        yield outcome
        return
    final, best = outcome
    task, suite = _task(str(config.get("data_set", "")))
    levels = _levels(log.rows[-1].get("prompt_indices"))
    settings = _settings(
        config.get("lr"),
        config.get("weight_decay"),
        config.get("share_threshold"),
        number_in_config_name(str(config.get("cfg", ""))),
        levels,
    )
    yield ForeignResult(
        path,
        naming.method or "ship",
        task,
        suite,
        seed=whole(config.get("seed")),
        final=final.accuracy,
        best=best.accuracy,
        best_epoch=best.epoch,
        **_counted(log.rows[-1].get("n_parameters"), settings),
        settings=settings,
        levels=levels,
        history=tuple(log.tests),
    )


def _summary(path: Path, naming: Naming) -> Iterator[Reading]:
    blocks = list(_BLOCK.finditer(read_text(path)))
    if not blocks:
        yield Skipped(path, "no block with a maximum accuracy, a log file path and details")
    for block in blocks:
        parts = Path(block["path"]).parts
        task, suite = _task(parts[1] if len(parts) > 1 else "")
        named = _IN_PATH.search(block["path"])
        in_path: Mapping[str, str] = named.groupdict() if named else {}
        levels = _levels(json.loads(block["levels"]))
        rate, decay, threshold, length = (in_path.get(name) for name in ("lr", "wd", "threshold", "length"))
        settings = _settings(rate, decay, threshold, length, levels)
        seed = re.search(r"seed(\d+)", block["path"])
        yield ForeignResult(
            path,
            naming.method or "ship",
            task,
            suite,
            row=block["path"],
            seed=int(seed[1]) if seed else None,
            best=percent(block["accuracy"], "the maximum accuracy"),
            **_counted(block["parameters"], settings),
            settings=settings,
            levels=levels,
            note=_CHOSEN_ON_TEST,
        )


def _task(name: str) -> tuple[str, str]:
    task = vtab_task(name)
    return (task, VTAB) if task else (name, "")


def _levels(indices: Any) -> tuple[int, ...]:
    return tuple(int(index) for index in indices) if isinstance(indices, list) else ()


def _settings(rate: Any, decay: Any, threshold: Any, length: Any, levels: tuple[int, ...]) -> dict[str, Any]:
    settings = {
        "lr": number(rate),
        "weight_decay": number(decay),
        "threshold": number(threshold),
        "prompt_length": whole(length),
        "levels": list(levels) or None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _counted(written: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of parameters: with weight decay 0 the optimiser also holds the frozen backbone."""
    count = number(written)
    frozen = count is not None and settings.get("weight_decay") == 0 and count > BACKBONE_PARAMETERS
    trained = count - BACKBONE_PARAMETERS if count is not None and frozen else count
    return {"parameters": trained, "parameters_as_written": count, "with_head": True}


def _is_candidate(path: Path) -> bool:
    return path.name in ("log.txt", _SUMMARY)


SHIP = Harness("ship", f"log.txt or {_SUMMARY} of the official SHIP code", "percent", _is_candidate, _read)
