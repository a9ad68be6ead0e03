"""``log.txt`` of NOAH and SHIP: a JSON object per evaluated epoch, between lines of arguments."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipbench.results.foreign.result import Evaluation, Skipped, ends_early, in_sequence, unfinished
from shipbench.results.foreign.text import percent, read_text, whole


@dataclass(frozen=True)
class JsonLog:
    """The evaluated epochs in a log as JSON objects, and the arguments of the attempt that wrote the last of them.

    ``cut`` says that the last line is an object that was not written to its end.
    """

    rows: tuple[dict[str, Any], ...]
    arguments: dict[str, str]
    cut: bool

    @property
    def tests(self) -> list[Evaluation]:
        """The test evaluations of the last attempt; raises ``ValueError`` for an accuracy outside [0, 100]."""
        return in_sequence((whole(row["epoch"]), percent(row["test_acc1"], "test_acc1")) for row in self.rows)

    @property
    def is_of_ship(self) -> bool:
        """Whether the log has what SHIP writes and NOAH does not: a line of arguments, or columns of its own."""
        return bool(self.arguments) or any({"max_accuracy", "prompt_indices"} & row.keys() for row in self.rows)


def read_json_log(path: Path) -> JsonLog:
    """Return the log; lines that are not JSON are left out, as the last line of a killed run often is none."""
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    objects = [_object(line) for line in lines]
    is_row = [row is not None and "test_acc1" in row and whole(row.get("epoch")) is not None for row in objects]
    rows = [row for row, counts in zip(objects, is_row, strict=True) if row is not None and counts]
    # Arguments below the last row are those of an attempt that has evaluated nothing.
    end = max((i for i, counts in enumerate(is_row) if counts), default=len(lines))
    arguments = [line for line in lines[:end] if line.startswith("--")]
    cut = bool(lines) and objects[-1] is None and lines[-1].startswith("{")
    return JsonLog(tuple(rows), _arguments(arguments[-1]) if arguments else {}, cut)


def why_without_result(path: Path, log: JsonLog, epochs: int | None) -> Skipped | None:
    """Return why a log gives no result, or None for the log of a finished run."""
    tests = log.tests
    if not tests:
        return Skipped(path, "no test accuracy: no line has an epoch and a number as test_acc1")
    if epochs is None:
        return Skipped(path, "neither the log nor config.yaml says how many epochs the run was to have")
    if ends_early(tests, epochs):
        return unfinished(path, tests, epochs, "the last line is cut off" if log.cut else "")
    return None


def number_in_config_name(name: str) -> int | None:
    """Return the prompt length in the name of a configuration, such as 50 in ``ViT-B_prompt_50.yaml``."""
    found = re.search(r"_(\d+)\.ya?ml$", name)
    return int(found[1]) if found else None


def _object(line: str) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _arguments(line: str) -> dict[str, str]:
    pairs = (part.partition(" ") for part in re.split(r"(?:^|\s)--", line) if part.strip())
    return {key: value.strip() for key, _, value in pairs}
