"""``shipbench bench --operations``: what a training step launches on a GPU, counted on the meta device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shipbench.bench import operations
from shipbench.bench.emulated_autocast import emulated_autocast
from shipbench.hardware.precision import ComputeContext
from shipbench.prompting.full_precision import full_precision
from tests.conftest import Shipbench

# Six blocks, with carried, guided and attending prompts.
SMALL = ("--backbone", "test_vit", "--image-size", 64, "--batch-size", 12, "--levels", "0,2,4", "--drop-path", 0.3)


@pytest.fixture
def count(shipbench: Shipbench, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def run(*line: object) -> list[dict[str, Any]]:
        outcome = shipbench("bench", "--operations", *SMALL, *line, "--json", tmp_path / "o.json")
        assert outcome.code == 0, outcome.err
        rows: list[dict[str, Any]] = json.loads((tmp_path / "o.json").read_text())["operations"]
        return rows

    return run


def test_all_draws_are_one_sequence_with_one_upload(count: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "DRAWS", 4)
    (row,) = count("--method", "ship")
    assert (row["precision"], row["sequences"], row["uploads"]) == ("bf16", 1, 1)
    assert (row["weight_casts"], row["indexed_sums"]) == (0, 0)
    assert row["launches"] == row["forward"] + row["backward"]
    assert row["ratio"] is None


def test_launches_are_compared_with_vpt_deep(count: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "DRAWS", 2)
    ship, vpt = count("--method", "ship,vpt-deep", "--precision", "fp32")
    assert vpt["ratio"] == 1
    assert ship["ratio"] == ship["launches"] / vpt["launches"]
    assert [(row["sequences"], row["uploads"], row["indexed_sums"]) for row in (ship, vpt)] == [(1, 1, 0)] * 2


def test_ship_launches_at_most_1_3_times_what_vpt_deep_does(
    count: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "DRAWS", 2)
    # As many blocks and tokens as ViT-B/16, and so the same operations.
    paper = ("--backbone", "vit_tiny_patch16_224", "--image-size", 224, "--batch-size", 64, "--drop-path", 0.1)
    rows = count(*paper, "--levels", "0,2,4,6,8,11", "--prompt-lengths", "10,50", "--method", "ship,vpt-deep")
    short, long = (row for row in rows if row["method"] == "ship")
    assert short["ratio"] <= 1.3
    # Long prompts stay apart from the images: fewer rows are worth more than fewer launches.
    assert long["launches"] > short["launches"]
    assert {(row["sequences"], row["uploads"], row["weight_casts"], row["indexed_sums"]) for row in rows} == {
        (1, 1, 0, 0)
    }


def test_steps_that_draw_on_the_device_upload_nothing(
    count: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "DRAWS", 2)
    rows = count("--image-size", 32, "--method", "convpass,fact-tk,full,lora,repadapter")
    assert [(row["sequences"], row["uploads"], row["weight_casts"], row["indexed_sums"]) for row in rows] == [
        (1, 0, 0, 0)
    ] * 5


def test_weight_casts_of_autocast_are_counted(count: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "DRAWS", 2)
    (once,) = count("--method", "vpt-deep")
    monkeypatch.setattr(operations, "cast_frozen_weights", lambda model, compute: None)
    (always,) = count("--method", "vpt-deep")
    # Weights and biases of the patch embedding, and of qkv, proj, fc1 and fc2 in each of six blocks.
    assert always["weight_casts"] >= 2 + 6 * 8
    assert always["launches"] == once["launches"] + always["weight_casts"]


class Changing(nn.Module):
    """A model whose step is another one in every draw, with the operations that a static step avoids."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, device="meta"))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scale rows of the weight as often as a number from the host says."""
        rows = torch.zeros(4, dtype=torch.long).to("meta")
        values = self.weight.index_select(0, rows).index_add(0, rows, self.weight)
        for _ in range(int(torch.randint(1, 5, ()))):
            values = values * 2.0
        return values.sum()


def test_steps_that_change_and_indexed_sums_are_counted() -> None:
    compute = ComputeContext(operations.META, "fp32")
    images = torch.empty(1, device="meta")
    steps = [operations._step(Changing(), images, images, compute, seed) for seed in range(6)]
    assert 1 < len({tuple(step.operations) for step in steps}) <= 4
    # The one in the loss and the gradient of the selection.
    assert [(step.uploads, step.indexed_sums) for step in steps] == [(1, 2)] * 6


def test_casts_follow_cuda_autocast() -> None:
    weight = torch.nn.Linear(8, 8, device="meta")
    features = torch.empty(3, 8, device="meta")
    with emulated_autocast(True):
        assert weight(features).dtype == torch.bfloat16
        assert torch.nn.functional.layer_norm(weight(features), (8,)).dtype == torch.float32
        with full_precision(features.device):
            assert weight(features).dtype == torch.float32
        assert (features @ features.T).dtype == torch.bfloat16
        assert torch.nn.Conv1d(8, 4, 1, device="meta")(features.T).dtype == torch.bfloat16
    with emulated_autocast(False):
        assert weight(features).dtype == torch.float32
        with operations._Step(weight) as step:
            torch.nn.functional.dropout(weight(features), 0.1)
    assert [name for name, *_ in step.operations] == ["addmm", "native_dropout"]
    assert not torch.is_autocast_enabled("cuda")


def test_operations_are_not_timed(shipbench: Shipbench) -> None:
    outcome = shipbench("bench", "--operations", "--all")
    assert outcome.code == 2
    assert "use it without --all" in outcome.err


@pytest.mark.parametrize(("rate", "training", "launched"), [(0.5, True, 1), (0.0, True, 0), (0.5, False, 0)])
def test_dropout_that_drops_nothing_launches_nothing(rate: float, training: bool, launched: int) -> None:
    values = torch.ones(4, 3, device=operations.META)
    with operations._Step(nn.Linear(1, 1)) as step, emulated_autocast(enabled=True):
        nn.functional.dropout(values, rate, training)
    assert step.launches == launched
