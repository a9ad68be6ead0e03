"""``shipbench bench``: every subject is measured against the bare backbone; no figure of time is asserted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Outcome

Shipbench = Callable[..., Outcome]
SMALL = ("--backbone", "test_vit", "--image-size", 64, "--batch-size", 2, "--repeats", 1, "--levels", "0,2,4")


def test_every_method_is_measured(shipbench: Shipbench, tmp_path: Path) -> None:
    outcome = shipbench("bench", *SMALL, "--prompt-lengths", "5,10", "--json", tmp_path / "out" / "bench.json")
    assert outcome.code == 0, outcome.err
    content = json.loads((tmp_path / "out" / "bench.json").read_text())
    rows = {(row["subject"], row["prompt_length"]): row for row in content["measurements"]}
    prompted = [(name, length) for name in ("ship", "vpt-deep", "vpt-shallow") for length in (5, 10)]
    assert set(rows) == {("bare backbone", None), ("full", None), ("linear", None), *prompted}
    assert rows["bare backbone", None]["inference_ratio"] == rows["bare backbone", None]["training_ratio"] == 1.0
    assert rows["vpt-deep", 10]["inference_flops"] > rows["vpt-deep", 5]["inference_flops"]
    assert all(row["training_flops"] > 0 and row["training"]["low"] > 0 for row in rows.values())


def test_ship_at_inference_needs_less_arithmetic_than_the_bare_backbone(shipbench: Shipbench, tmp_path: Path) -> None:
    line = ("--method", "ship", "--backbone", "vit_tiny_patch16_224", "--batch-size", 1, "--repeats", 1)
    assert shipbench("bench", *line, "--prompt-lengths", 10, "--json", tmp_path / "b.json").code == 0
    bare, ship = json.loads((tmp_path / "b.json").read_text())["measurements"]
    assert ship["inference_flops"] < bare["inference_flops"]


def test_wrong_input(shipbench: Shipbench) -> None:
    assert "do not fit" in shipbench("bench", *SMALL, "--levels", "0,9").err
    assert shipbench("bench", *SMALL, "--prompt-lengths", "five").code == 2
    assert "unknown precision 'fp8'" in shipbench("bench", *SMALL, "--precision", "fp32,fp8").err


def test_precisions_are_measured_apart(shipbench: Shipbench, tmp_path: Path) -> None:
    line = ("--method", "vpt-deep", "--precision", "fp32,bf16", "--prompt-lengths", 5, "--json", tmp_path / "b.json")
    assert shipbench("bench", *SMALL, *line).code == 0
    rows = json.loads((tmp_path / "b.json").read_text())["measurements"]
    assert [(row["subject"], row["precision"]) for row in rows] == [
        ("bare backbone", "fp32"),
        ("vpt-deep", "fp32"),
        ("bare backbone", "bf16"),
        ("vpt-deep", "bf16"),
    ]
