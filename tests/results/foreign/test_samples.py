"""Every sample of another harness is read as its description says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from shipbench.errors import InputError
from shipbench.record import RunRecord
from shipbench.results.foreign.importing import Outcome
from tests.data.formats.samples import samples
from tests.results.foreign.trees import imported

FOLDERS = {
    "osu": "osu",
    "vpt": "vpt",
    "noah": "noah",
    "ship": "ship",
    "ship_summary": "ship",
    "adapter_plus": "adapter-plus",
    "vpetl": "vpetl",
    "timm": "timm",
    "plain_csv": "csv",
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_sample_is_read_as_described(folder: str, tmp_path: Path) -> None:
    root = samples().parent
    path = root / folder / "results.csv" if folder == "plain_csv" else root / folder
    naming = {"method": "ssf", "task": "torch/cifar100"} if folder == "timm" else {}
    outcomes = imported(FOLDERS[folder], path, tmp_path, **naming)
    facts = json.loads((root / "expected.json").read_text())["results"][folder]
    for fact in facts:
        if "error" not in fact:
            check(fact, [outcome for outcome in outcomes if root / fact["path"] in (outcome.file, outcome.file.parent)])


def check(fact: dict[str, Any], outcomes: list[Outcome]) -> None:
    if fact["final_acc"] is None and fact["best_acc"] is None:
        (outcome,) = outcomes
        assert outcome.state == "skipped"
        assert fact.get("status", "")[:25] in outcome.reason
        return
    task = fact["task"] or fact["foreign_task"]
    records = [outcome.record for outcome in outcomes if outcome.record is not None and outcome.record.task == task]
    (record,) = [record for record in records if fact["seed"] in (None, record.seed)]
    assert facts_of(record) == pytest.approx(numbers_in(fact), nan_ok=True)
    assert record.method == (fact["method"] or "ssf")
    assert record.suite == (fact["suite"] or "")
    assert record.epoch_rule == ("oracle" if fact["final_acc"] is None else "final")
    assert record.params_with_head == {None: "", True: "yes", False: "no"}[fact["params_include_head"]]
    if "base_lr" in fact:
        assert f"the base rate is {fact['base_lr']:g}" in record.origin_note
    if "settings" in fact:
        assert dict(record.settings) == fact["settings"]


def facts_of(record: RunRecord) -> dict[str, float]:
    counted = record.trainable_params if record.params_with_head == "yes" else record.trainable_params_without_head
    return {
        "final": 100 * record.final_test_acc,
        "best": 100 * record.best_test_acc,
        "epoch": record.best_test_epoch + 1,
        "seed": record.seed,
        "written": record.params_as_written,
        "params": counted if record.params_with_head else record.params_as_written,
    }


def numbers_in(fact: dict[str, Any]) -> dict[str, float]:
    values = {
        "final": fact["final_acc"],
        "best": fact["best_acc"],
        "epoch": fact["best_epoch"] or 0,
        "seed": -1 if fact["seed"] is None else fact["seed"],
        "written": fact.get("params_as_written", fact["params"]),
        "params": fact["params"],
    }
    return {name: math.nan if value is None else value for name, value in values.items()}


def test_the_broken_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 5: 0\.879 among percentages"):
        imported("csv", samples().parent / "plain_csv" / "results_bad.csv", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_format_of_peft_is_refused() -> None:
    with pytest.raises(InputError, match="language"):
        imported("peft", Path("lora.json"), Path("results"))
