"""What a tuning decided, on disk: ``tuning/<id>.json`` in the results folder, written whole or not at all.

The file says what was tried, what each point scored, which won and how a tie was broken, and which runs on the 1000
follow from it. It is the only link between the two: a run's id never depends on how its settings were found.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import shipbench
from shipbench.errors import InputError
from shipbench.planning.tuning import RULE, Choice, Search, Trial
from shipbench.runtime.cache import atomic_path
from shipbench.runtime.version import git_commit
from shipbench.settings import canonical_json

FORMAT = "shipbench-tuning-1"


def tuning_id(trials: Sequence[Trial]) -> str:
    """Return 16 hexadecimal digits that follow from the runs that were compared, in the grid's order."""
    return hashlib.sha256(canonical_json([list(trial.runs) for trial in trials]).encode()).hexdigest()[:16]


def describe(
    search: Search, tuning_seeds: Sequence[int], trials: Sequence[Trial], choice: Choice, final_runs: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the content of the file; accuracies are fractions in [0, 1], None where a run failed."""
    return {
        "format": FORMAT,
        "tuning_id": tuning_id(trials),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "shipbench_version": shipbench.__version__,
        "git_commit": git_commit(),
        "method": search.method,
        "tasks": list(search.tasks),
        "tuning_seeds": list(tuning_seeds),
        "trained_on": "train800",
        "scored_on": "val200",
        "rule": RULE,
        "grid": {key: list(values) for key, values in search.axes.items()},
        "trials": [_trial(trial) for trial in trials],
        "winner": choice.winner,
        "winner_settings": None if choice.winner is None else dict(trials[choice.winner].settings),
        "tied": list(choice.tied),
        "tie_broken_by": choice.broken_by,
        "final_runs": list(final_runs),
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "settings": dict(trial.settings),
        "runs": list(trial.runs),
        "val_acc": [_known(accuracy) for accuracy in trial.accuracies],
        "mean_val_acc": _known(trial.mean),
        "trainable_params": _known(trial.trainable_params),
        "error": trial.error,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_tuning(results: Path | str, document: Mapping[str, Any]) -> Path:
    """Store a tuning; final runs that an earlier file with the same winner names are kept. Return the file."""
    path = Path(results) / "tuning" / f"{document['tuning_id']}.json"
    earlier = _read(path) if path.exists() else {}
    same = earlier.get("winner_settings") == document["winner_settings"]
    runs = [*(earlier.get("final_runs", []) if same else []), *document["final_runs"]]
    with atomic_path(path) as temporary:
        text = json.dumps({**document, "final_runs": list(dict.fromkeys(runs))}, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def load_tunings(results: Path | str) -> list[dict[str, Any]]:
    """Return every tuning of a results folder, by id; raises ``InputError`` for a file that cannot be read."""
    return [_read(path) for path in sorted((Path(results) / "tuning").glob("*.json"))]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"tuning {path} cannot be read ({error}); move it away and tune again") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f"tuning {path} is not of the format {FORMAT}; move it away and tune again")
    return document
