"""The official SHIP repository: ``log.txt`` of a run, and ``results_summary.txt`` with the best run of each task."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from shipbench.results.foreign.json_logs import number_in_config_name, read_json_log, why_without_result
from shipbench.results.foreign.result import (
    BACKBONE_PARAMETERS,
    ForeignResult,
    Harness,
    Naming,
    Reading,
    Skipped,
    scores_of,
)
from shipbench.results.foreign.tasks import task_and_suite
from shipbench.results.foreign.text import number, percent, read_text, read_yaml, whole

_SUMMARY = "results_summary.txt"
_BLOCK_START = "Max accuracy found:"
_BLOCK = re.compile(r"\s*(?P<accuracy>[\d.]+) ?%?\s+Log file path:\s*(?P<path>\S.*?\.txt)\s")
_PARAMETERS = re.compile(r"n_parameters=(\d+)")
_LEVELS = re.compile(r"prompt_indices=(\[[^\]]*\])")
_IN_PATH = re.compile(
    r"_(?P<lr>[\d.e-]+)_(?P<wd>[\d.e-]+)_[a-z0-9]+_(?P<threshold>[\d.]+)_K(?P<length>\d+)", re.IGNORECASE
)
_SEED = re.compile(r"seed[_=]?(\d+)")
_CHOSEN_ON_TEST = "the best of all settings, runs and epochs, chosen by test accuracy"


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    yield from _summary(path, naming) if path.name == _SUMMARY else _log(path, naming)


def _log(path: Path, naming: Naming) -> Iterator[Reading]:
    log = read_json_log(path)
    config = {**read_yaml(path.with_name("config.yaml")), **log.arguments}
    skipped = why_without_result(path, log, whole(config.get("epochs")))
    if log.rows and not log.is_of_ship and "share_threshold" not in config:
        skipped = Skipped(path, "nothing in it is of SHIP's code; import a log of NOAH as noah")
    if skipped is not None:
        yield skipped
        return
    task, suite = task_and_suite(str(config.get("data_set", "")))
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
        **_counted(log.rows[-1].get("n_parameters"), settings),
        settings=settings,
        levels=levels,
        **scores_of(log.tests),
    )


def _summary(path: Path, naming: Naming) -> Iterator[Reading]:
    blocks = read_text(path).split(_BLOCK_START)[1:]
    if not blocks:
        yield Skipped(path, "no block with a maximum accuracy, a log file path and details")
    for text in blocks:
        block = _BLOCK.match(f"{text}\n")
        if block is None:
            yield Skipped(path, f"a block without an accuracy and the path of a log: {' '.join(text.split())[:80]}")
            continue
        named = _IN_PATH.search(block["path"])
        in_path: Mapping[str, str] = named.groupdict() if named else {}
        levels = _levels(json.loads(_first(_LEVELS, text) or "[]"))
        rate, decay, threshold, length = (in_path.get(name) for name in ("lr", "wd", "threshold", "length"))
        settings = _settings(rate, decay, threshold, length, levels)
        yield ForeignResult(
            path,
            naming.method or "ship",
            *task_and_suite(_task_in(block["path"])),
            row=block["path"],
            seed=whole(_first(_SEED, block["path"])),
            best=percent(block["accuracy"], "the maximum accuracy"),
            **_counted(_first(_PARAMETERS, text), settings),
            settings=settings,
            levels=levels,
            note=_CHOSEN_ON_TEST,
        )


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[1] if match else None


def _task_in(path: str) -> str:
    """Return the folder of a task: the one above the settings, whose name begins with it, else the second."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    settings = (above for above, below in pairwise(parts) if below.startswith(f"{above}_") and _IN_PATH.search(below))
    return next(settings, parts[1] if len(parts) > 1 else "")


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
    frozen = count is not None and settings.get("weight_decay", 0) == 0 and count > BACKBONE_PARAMETERS
    trained = count - BACKBONE_PARAMETERS if count is not None and frozen else count
    return {"parameters": trained, "parameters_as_written": count, "with_head": True}


def _is_candidate(path: Path) -> bool:
    return path.name in ("log.txt", _SUMMARY)


SHIP = Harness("ship", f"log.txt or {_SUMMARY} of the official SHIP code", "percent", _is_candidate, _read)
