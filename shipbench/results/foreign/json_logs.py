"""``log.txt`` of NOAH and SHIP: a JSON object per evaluated epoch, between lines of arguments."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipbench.results.foreign.result import Evaluation, Skipped, best_of, unfinished
from shipbench.results.foreign.text import percent, read_text, whole


@dataclass(frozen=True)
class JsonLog:
    """The evaluated epochs of the last attempt in a log, as JSON objects, and the arguments in its first other line."""

    rows: tuple[dict[str, Any], ...]
    arguments: dict[str, str]
    cut: bool

    @property
    def tests(self) -> list[Evaluation]:
        """The test evaluations; raises ``ValueError`` for an accuracy outside [0, 100]."""
        scores = [(row["epoch"], percent(row["test_acc1"], "test_acc1")) for row in self.rows]
        return [Evaluation(int(epoch), "test", score) for epoch, score in scores if score is not None]


def read_json_log(path: Path) -> JsonLog:
    """Return the log; lines that are not JSON are left out, as the last line of a killed run often is none."""
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    objects = [_object(line) for line in lines]
    rows = [row for row in objects if row is not None and "test_acc1" in row and whole(row.get("epoch")) is not None]
    # A run that started over, and did not resume, counts its epochs from 0 again.
    starts = [i for i, row in enumerate(rows) if row["epoch"] == 0]
    arguments = [line for line in lines if line.startswith("--")]
    cut = bool(lines) and objects[-1] is None and lines[-1].startswith("{")
    return JsonLog(tuple(rows[starts[-1] :] if starts else rows), _arguments(arguments[-1]) if arguments else {}, cut)


def final_and_best(path: Path, log: JsonLog, epochs: int | None) -> tuple[Evaluation, Evaluation] | Skipped:
    """Return the test evaluation after the last epoch and the best one, or why there are none."""
    tests = log.tests
    if not tests:
        return Skipped(path, "no test accuracy: no line has test_acc1 and epoch")
    if epochs is None:
        return Skipped(path, "neither the log nor config.yaml says how many epochs the run was to have")
    if tests[-1].epoch < epochs - 1:
        return unfinished(path, tests[-1].epoch + 1, epochs, tests, "the last line is cut off" if log.cut else "")
    return tests[-1], best_of(tests)


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
