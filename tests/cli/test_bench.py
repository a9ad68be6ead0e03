"""``shipbench bench``: every subject is measured against the bare backbone; no figure of time is asserted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_whole_runs_are_measured_and_leave_nothing(shipbench: Shipbench, tmp_path: Path, cache: Path) -> None:
    line = ("--method", "vpt-deep,linear", "--train-images", 16, "--test-images", 12, "--batch-size", 8)
    outcome = shipbench(
        "bench", "--end-to-end", "--backbone", "test_vit", "--image-size", 64, *line, "--json", tmp_path / "b.json"
    )
    assert outcome.code == 0, outcome.err
    prompted, linear = json.loads((tmp_path / "b.json").read_text())["measurements"]
    for row in (prompted, linear):
        assert sum(row["training_shares"].values()) == pytest.approx(1)
        assert set(row["training_shares"]) == {"data", "optimiser", "model"}
        assert sum(row["estimates"].values()) == pytest.approx(row["benchmark_seconds"])
    # 100 epochs of 19 000 images, then every test image of VTAB-1k once; features of a linear probe are read once.
    assert prompted["estimates"]["training"] == pytest.approx(1_900_000 / prompted["training_rate"])
    assert prompted["estimates"]["evaluation"] == pytest.approx(387_904 / prompted["evaluation_rate"])
    assert linear["estimates"]["evaluation"] == 0
    assert linear["estimates"]["building"] == pytest.approx(linear["building_seconds"] * (19_000 + 387_904) / 28)
    assert not cache.exists()
