"""Tunings on disk: ``tuning/<id>.json`` in the results folder, written atomically.

A file holds the grid, the score of each point, the winner with the tie-break, and the ids of the final runs with the
winner's settings, apart from those of winners that it had before. Nothing else links the two: a run id does not depend
on how the settings were found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shipbench.errors import InputError, one_line
from shipbench.results import claims
from shipbench.results.lookup import Folders, folder_list, visible_files
from shipbench.results.store import writing
from shipbench.runtime.console import say
from shipbench.runtime.files import atomic_path, look_up_anew

FORMAT = "shipbench-tuning-1"


def write_tuning(results: Path | str, document: Mapping[str, Any]) -> Path:
    """Store a tuning and return its file; the final runs of an earlier file are kept, apart if its winner was another.

    Waits while another process stores the same tuning. Raises ``StoreError`` if the results folder cannot be written
    to.
    """
    root, name = Path(results), str(document["tuning_id"])
    path = root / "tuning" / f"{name}.json"
    # Commands with other seeds may add their runs at the same time.
    with claims.wait_for(root, name, lambda holder: say(f"waiting for {holder}, which stores the same tuning")):
        # As it is read again: JSON has lists where settings have tuples.
        stored = json.loads(json.dumps(document, allow_nan=False))
        with writing(root):
            look_up_anew(path)
        earlier = _read(path) if path.exists() else {}
        with writing(root), atomic_path(path) as temporary:
            text = json.dumps({**stored, **_all_final_runs(earlier, stored)}, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
    return path


def _all_final_runs(earlier: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the final runs of two documents of a tuning: those of the present winner, and those of earlier ones."""
    before, replaced = earlier.get("final_runs", []), earlier.get("earlier_final_runs", [])
    same_winner = earlier.get("winner_settings") == stored["winner_settings"]
    runs = dict.fromkeys([*(before if same_winner else []), *stored["final_runs"]])
    others = dict.fromkeys([*replaced, *before])
    return {"final_runs": list(runs), "earlier_final_runs": [run for run in others if run not in runs]}


def load_tunings(results: Folders) -> list[dict[str, Any]]:
    """Return every tuning of a results folder, sorted by id, or of several folders, one after the other.

    Raises ``InputError`` if one cannot be read.
    """
    return [_read(path) for folder in folder_list(results) for path in visible_files(folder / "tuning", ".json")]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"tuning {path} cannot be read ({one_line(error)}); move it away and tune again") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f"tuning {path} does not have the format {FORMAT}; move it away and tune again")
    return document
