"""V-PETL Bench: ``training.log`` with an evaluation on test every few epochs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shipbench.results.foreign.result import (
    ForeignResult,
    Harness,
    Naming,
    Reading,
    Skipped,
    ends_early,
    in_sequence,
    scores_of,
    unfinished,
)
from shipbench.results.foreign.tasks import task_and_suite
from shipbench.results.foreign.text import call_arguments, folders_above, fraction, number, read_text, whole

_MESSAGE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ - \w+ - [A-Z]+ -(.*)")
_SCORE = re.compile(r"^\s*(\d+)\s+(\S+)\s+memory:")
_PARAMETERS = re.compile(r"^number of extra params:\s*([\d.]+)(?![\d.,])\s*(M?)")
_SETTINGS = ("lr", "wd", "topN")


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    messages = [m[1].strip() for m in map(_MESSAGE.search, read_text(path).splitlines()) if m]
    starts = [i for i, message in enumerate(messages) if message.startswith("Namespace(")]
    # The log is appended to: the last run in it counts.
    messages = messages[starts[-1] :] if starts else messages
    arguments = call_arguments(messages[0]) if starts else {}
    config = _config(messages)
    lines = [match for match in map(_SCORE.match, messages) if match]
    scores = [(int(line[1]), fraction(line[2], "the accuracy")) for line in lines]
    tests = in_sequence(scores)
    if not tests:
        run = "the last run in it" if len(starts) > 1 else "it"
        yield Skipped(path, f"{run} logs no accuracy: it ended before its first one, or fine-tuned the whole backbone")
        return
    epochs = whole(config.get("epochs"))
    if scores[-1][1] is None:
        yield unfinished(path, tests, epochs, f"then the accuracy is {lines[-1][2]}, no number")
        return
    if "end" not in messages and (epochs is None or ends_early(tests, epochs)):
        yield unfinished(path, tests, epochs, "the log has no line 'end'")
        return
    yield ForeignResult(
        path,
        naming.method or _method(arguments, path),
        *task_and_suite(str(arguments.get("dataset", "")), str(arguments.get("task") or "vtab")),
        seed=whole(arguments.get("seed")),
        parameters=_parameters(messages),
        with_head=True,
        classes=whole(config.get("class_num")),
        other_head="vit_base" not in str(arguments.get("model", "vit_base")),
        # An option that is not given leaves the value of the configuration.
        settings={
            name: value
            for name in _SETTINGS
            if (value := config.get(name) if arguments.get(name) is None else arguments[name]) is not None
        },
        note="the log holds an earlier run, which is not read" if len(starts) > 1 else "",
        **scores_of(tests),
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
    kind = str(arguments.get("model_type") or arguments.get("tuning_mode") or folders_above(path, 3)[0])
    return kind.removeprefix("vit_").replace("_", "-")


def _is_candidate(path: Path) -> bool:
    return path.name == "training.log"


VPETL = Harness("vpetl", "training.log of V-PETL Bench", "fraction", _is_candidate, _read)
