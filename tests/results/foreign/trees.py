"""Write files as other harnesses do, with chosen numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shipbench.results.foreign.importing import Outcome, import_results
from shipbench.results.foreign.registry import get_harness
from shipbench.results.foreign.result import Naming
from shipbench.results.store import Store


def imported(harness: str, path: Path, results: Path, *, dry_run: bool = False, **naming: Any) -> list[Outcome]:
    """Import ``path`` into ``results`` and return what became of every file."""
    return import_results(get_harness(harness), path, Store(results), Naming(**naming), dry_run=dry_run)


def write(path: Path, text: str) -> Path:
    """Write a file and the folders above it; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def osu_result(
    root: Path,
    name: str,
    method: str,
    last: float,
    best: float,
    params: int = 92_160,
    tuned: dict[str, Any] | None = None,
) -> Path:
    """Write the result of a VTAB-1k task as the tuned runs of OSU-MLB do."""
    content = {
        "avg_acc": last,
        "avg_best_acc": best,
        "inserted_parameters": params,
        "best_tune": tuned or {"lr": 0.001},
    }
    folder = root / "tune_output" / "default_vtab" / "processed_vtab" / name / method
    return write(folder / "final_result.json", json.dumps(content))


def vpt_log(
    scores: Sequence[float], *, epochs: int, name: str = "vtab-dtd", val: Sequence[float] = (), **config: str
) -> str:
    """Return a log with a test top-1 per epoch in percent; ``config`` replaces settings of the dump."""
    values = {
        "TRANSFER_TYPE": "'prompt'", "DEEP": "True", "LOCATION": "'prepend'", "NUM_TOKENS": "10", "SEED": "42",
        "BATCH_SIZE": "64", "BASE_LR": "0.25", "WEIGHT_DECAY": "0.001", "TOTAL_EPOCH": str(epochs), **config,
    }  # fmt: skip
    messages = ["Rank of current process: 0. World size: 1", "Training with config:"]
    messages.append("{" + ",\n ".join(f"'{key}': {value}" for key, value in values.items()) + "}")
    messages.append("Total Parameters: 85926959\t Gradient Parameters: 128303")
    for epoch, score in enumerate(scores):
        messages.append(f"Training {epoch + 1} / {epochs} epoch, with learning rate 0.1")
        if val:
            messages.append(f"Classification results with val_{name}: top1: {val[epoch]:.2f}\ttop5: 99.00\t")
        messages.append(f"Classification results with test_{name}: top1: {score:.2f}\ttop5: 99.00\t")
    return "".join(f"[03/01 10:00:00][INFO] visual_prompt:  104: {message}\n" for message in messages)


def json_lines(scores: dict[int, float], **columns: Any) -> str:
    """Return the lines of a NOAH or SHIP log: a test accuracy in percent per epoch, counted from 0."""
    rows = ({"test_acc1": score, "epoch": epoch, "n_parameters": 128_303, **columns} for epoch, score in scores.items())
    return "".join(json.dumps(row) + "\n" for row in rows)
