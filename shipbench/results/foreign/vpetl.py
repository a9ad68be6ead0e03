"""V-PETL Bench: ``training.log`` with an evaluation on test every few epochs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shipbench.results.foreign.result import (
    VTAB,
    Evaluation,
    ForeignResult,
    Harness,
    Naming,
    Reading,
    Skipped,
    best_of,
    unfinished,
)
from shipbench.results.foreign.tasks import vtab_task
from shipbench.results.foreign.text import call_arguments, fraction, number, read_text, whole

_MESSAGE = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ - \w+ - [A-Z]+ - (.*)$")
_SCORE = re.compile(r"^(\d+) ([\d.]+) +memory:")
_PARAMETERS = re.compile(r"^number of extra params: ([\d.]+) ?(M?)")
_SETTINGS = ("lr", "wd", "topN")


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    messages = [m[1] for m in map(_MESSAGE.match, read_text(path).splitlines()) if m]
    starts = [i for i, message in enumerate(messages) if message.startswith("Namespace(")]
    # The log is appended to: the last run in it counts.
    messages = messages[starts[-1] :] if starts else messages
    arguments = call_arguments(messages[0]) if starts else {}
    config = _config(messages)
    tests = [
        Evaluation(int(m[1]), "test", score)
        for m in map(_SCORE.match, messages)
        if m and (score := fraction(m[2], "the accuracy")) is not None
    ]
    if not tests:
        yield Skipped(path, "it logs no accuracy, as the script of full fine-tuning does")
        return
    epochs = whole(config.get("epochs"))
    if "end" not in messages and (epochs is None or tests[-1].epoch < epochs - 1):
        yield unfinished(path, tests[-1].epoch + 1, epochs or tests[-1].epoch + 2, tests)
        return
    best = best_of(tests)
    parameters = _parameters(messages)
    yield ForeignResult(
        path,
        naming.method or _method(arguments, path),
        *_task(arguments),
        seed=whole(arguments.get("seed")),
        final=tests[-1].accuracy,
        best=best.accuracy,
        best_epoch=best.epoch,
        parameters=parameters,
        parameters_as_written=parameters,
        with_head=True,
        classes=whole(config.get("class_num")),
        settings={name: arguments[name] for name in _SETTINGS if name in arguments},
        history=tuple(tests),
    )


def _config(messages: Sequence[str]) -> dict[str, Any]:
    """Return the configuration, which is logged as a literal of Python."""
    for message in messages:
        if message.startswith("{"):
            try:
                content = ast.literal_eval(message)
            except (ValueError, SyntaxError):
                continue
            if isinstance(content, dict):
                return content
    return {}


def _parameters(messages: Sequence[str]) -> float | None:
    found = next(filter(None, map(_PARAMETERS.match, messages)), None)
    count = number(found[1]) if found else None
    return count if count is None or found is None or not found[2] else round(1e6 * count)


def _method(arguments: dict[str, Any], path: Path) -> str:
    kind = str(arguments.get("model_type") or arguments.get("tuning_mode") or path.parents[2].name)
    return kind.removeprefix("vit_").replace("_", "-")


def _task(arguments: dict[str, Any]) -> tuple[str, str]:
    name, group = str(arguments.get("dataset", "")), arguments.get("task")
    task = vtab_task(name) if group in ("vtab", None) else None
    return (task, VTAB) if task else (name, "fgvc" if group == "fgvc" else "")


def _is_candidate(path: Path) -> bool:
    return path.name == "training.log"


VPETL = Harness("vpetl", "training.log of V-PETL Bench", "fraction", _is_candidate, _read)
