"""OSU-MLB/ViT_PEFT_Vision: a folder per method with ``final_result.json`` and two summaries."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shipbench.results.foreign.result import ForeignResult, Harness, Naming, Reading, Skipped
from shipbench.results.foreign.tasks import task_and_suite
from shipbench.results.foreign.text import folders_above, number, percent, read_json, read_text

_RESULT, _TUNING, _SUMMARY = "final_result.json", "tune_summary.csv", "final_summary.csv"
_METHODS = {"vpt_deep": "vpt-deep", "vpt_shallow": "vpt-shallow"}
# Experiments of the repository whose data are not VTAB-1k, or whose protocol is another one.
_OTHER_EXPERIMENTS = (
    "cifar100_tune_lrwd",
    "resisc_tune_lrwd",
    "clevr_tune_lr",
    "cifar100_1k_aug_normalized",
    "clip_fs_imagenet",
)


def _is_candidate(path: Path) -> bool:
    if path.name == _TUNING:
        return not path.with_name(_RESULT).exists()
    return path.name == _RESULT


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    if path.name == _TUNING:
        yield Skipped(path, "the final run is missing: tune_summary.csv holds val200 accuracies, never test")
        return
    content = read_json(path)
    final = percent(content.get("avg_acc"), "avg_acc")
    if final is None:
        yield Skipped(path, "it has no avg_acc, the test accuracy after the last epoch")
        return
    experiment, folder, name, method = folders_above(path, 4)
    if "tune_output_test" in path.resolve().parts:
        yield Skipped(path, "a test run of the harness (tune_output_test)")
        return
    is_vtab = folder.endswith("vtab")
    # The names of other folders say nothing of the data.
    named = is_vtab or any(part.startswith("tune_output") for part in path.resolve().parts)
    group = "vtab" if is_vtab and experiment not in _OTHER_EXPERIMENTS else ""
    yield ForeignResult(
        path,
        naming.method or _METHODS.get(method, method),
        *task_and_suite("" if not named else name if is_vtab or not folder else f"{folder}/{name}", group),
        final=final,
        best=percent(content.get("avg_best_acc"), "avg_best_acc"),
        parameters=number(content.get("inserted_parameters")),
        with_head=False,
        settings=_settings(content),
        note=_runs(path.with_name(_SUMMARY)),
    )


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    chosen = content.get("best_tune")
    return dict(chosen) if isinstance(chosen, dict) else {}


def _runs(summary: Path) -> str:
    """Return a note if the result is a mean over several runs: those after the last header of the summary."""
    if not summary.is_file():
        return ""
    rows = list(csv.reader(io.StringIO(read_text(summary))))
    headers = [i for i, row in enumerate(rows) if row[:1] == ["run_idx"]]
    runs = len([row for row in rows[headers[-1] + 1 :] if row]) if headers else 0
    return f"mean of {runs} runs" if runs > 1 else ""


OSU = Harness("osu", f"{_RESULT} of OSU-MLB/ViT_PEFT_Vision", "percent", _is_candidate, _read)
