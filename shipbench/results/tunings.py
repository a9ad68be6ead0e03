"""What a tuning decided, on disk: ``tuning/<id>.json`` in the results folder, written whole or not at all.

The file says what was tried, what each point scored, which won and how a tie was broken, and which runs on the 1000
follow from it. It is the only link between the two: a run's id never depends on how its settings were found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shipbench.errors import InputError
from shipbench.runtime.files import atomic_path

FORMAT = "shipbench-tuning-1"


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
