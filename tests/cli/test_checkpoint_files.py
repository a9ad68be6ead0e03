"""``shipbench run --checkpoint FILE``: the first line, the record, and the id that planning and runs agree on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from shipbench import RunSpec, load_results, run
from shipbench.cli.follow_ups import execute_follow_ups
from shipbench.events import Event, Note
from shipbench.planning.plan import PlannedRun, State
from shipbench.planning.study.file import EvaluatePart, ExplainPart
from shipbench.planning.study.follow_ups import plan_follow_up, request_follow_up
from shipbench.results.store import Store
from shipbench.runs import program
from tests.backbones import layouts
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree

IMAGENET = "mean 0.485, 0.456, 0.406 and deviation 0.229, 0.224, 0.225"


@pytest.fixture
def tree(tmp_path: Path, cache: Path) -> Path:
    return vtab_tree(tmp_path / "data", tasks=("dtd",))


@pytest.fixture
def mae_file(tmp_path: Path) -> Path:
    """A checkpoint of MAE's training: decoder and arguments beside the encoder, and averaged weights."""
    torch.manual_seed(5)
    state, averaged = (timm.create_model("test_vit", num_classes=0).state_dict() for _ in range(2))
    content = {"model": layouts.mae(state), "model_ema": layouts.mae(averaged), "args": argparse.Namespace(lr=1.0)}
    torch.save(content, tmp_path / "mae.pth")
    return tmp_path / "mae.pth"


def test_the_first_line_says_how_images_are_normalised_and_the_record_keeps_it(
    shipbench: Shipbench, tree: Path, mae_file: Path, tmp_path: Path
) -> None:
    model = ("--backbone", "test_vit", "--checkpoint", mae_file, "--set", "image_size=64")
    line = ("run", "--method", "linear", "--tasks", "dtd", *model, "--epochs", "1", "--data", tree)
    first = shipbench(*line, "--results", tmp_path / "r")
    assert first.code == 0, first.err
    lines = first.err.splitlines()
    assert lines[0] == f"mae.pth: images are normalised with {IMAGENET}, those of MAE"
    assert "mae.pth: using the weights under model_ema, not those under model" in lines
    assert "mae.pth: position embeddings are resampled from 10 x 10 to 4 x 4" in lines
    (row,) = load_results(tmp_path / "r").to_dict("records")
    assert (row["checkpoint_part"], row["position_grid"], row["normalisation"]) == ("model_ema", 10, "those of MAE")
    assert row["cfg.mean"] == "0.485,0.456,0.406"
    again = shipbench(*line, "--results", tmp_path / "r")
    assert "1 run: 0 to do, 1 done" in again.err
    assert again.err.splitlines()[0] == lines[0]


def test_the_normalisation_of_a_layout_is_part_of_the_id(tree: Path, mae_file: Path, tmp_path: Path) -> None:
    plain = torch.load(mae_file, weights_only=False)["model_ema"]
    torch.save({key: plain[key] for key in plain if "decoder" not in key and key != "mask_token"}, tmp_path / "w.pth")

    def record_of(path: Path, **overrides: object) -> tuple[str, str]:
        values = {"epochs": 1, "image_size": 64, **overrides}
        spec = RunSpec("linear", "dtd", overrides=values, backbone="test_vit", checkpoint=str(path), data=tree)
        record = run(spec)
        return record.run_id, record.backbone_sha256

    betrayed, own = record_of(mae_file), record_of(tmp_path / "w.pth")
    assert betrayed[1] == own[1]
    assert betrayed[0] != own[0]
    chosen = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    assert record_of(mae_file, **chosen) == record_of(tmp_path / "w.pth", **chosen)


def test_a_listener_gets_the_same_lines(tree: Path, mae_file: Path) -> None:
    events: list[Event] = []
    values = {"epochs": 1, "image_size": 64}
    spec = RunSpec("linear", "dtd", overrides=values, backbone="test_vit", checkpoint=str(mae_file), data=tree)
    run(spec, listener=events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert f"mae.pth: images are normalised with {IMAGENET}, those of MAE" in notes


@pytest.fixture
def trained(tree: Path, tmp_path: Path) -> PlannedRun:
    """A run on the weights in ``w.pth``, whose record is in ``r``."""
    torch.manual_seed(5)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "w.pth")
    values = {"epochs": 1, "image_size": 64}
    options: dict[str, Any] = {"backbone": "test_vit", "checkpoint": str(tmp_path / "w.pth"), "precision": "fp32"}
    spec = RunSpec("linear", "dtd", overrides=values, data=tree, device="cpu", **options)
    record = run(spec, results=tmp_path / "r")
    assert record.done, record.error
    return PlannedRun(spec, record.run_id, State.DONE)


def test_every_command_that_rebuilds_a_run_takes_its_file(
    shipbench: Shipbench, trained: PlannedRun, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tracing takes seconds.
    monkeypatch.setattr(program, "_program", lambda _: torch.export.export(torch.nn.Identity(), (torch.zeros(1),)))
    results, exported = ("--results", tmp_path / "r"), tmp_path / "run.safetensors"
    assert shipbench("export", trained.run_id, exported, *results).code == 0
    faults = []
    for line in (
        ("evaluate", trained.run_id, "--corrupt", "blur", "--severity", "1", "--data", tree, *results),
        ("explain", trained.run_id, "--features", "--data", tree, *results),
        ("export", trained.run_id, tmp_path / "merged.safetensors", "--merged", *results),
        ("export", trained.run_id, tmp_path / "run.pt2", "--program", *results),
        ("push", trained.run_id, "someone/a", "--dry-run", *results),
    ):
        without, outcome = shipbench(*line), shipbench(*line, "--checkpoint", tmp_path / "w.pth")
        asked = "the weights in w.pth; name that file with --checkpoint" in without.err
        if (without.code, asked, outcome.code) != (2, True, 0):
            faults.append((line, without.err, outcome.err))
    assert not faults
    photograph = next((tree / "dtd").rglob("*.png"))
    outcome = shipbench("predict", exported, photograph, "--checkpoint", tmp_path / "w.pth")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    "part", [EvaluatePart(name="x", of="a", corrupt="blur", severity="1,2"), ExplainPart(name="x", of="a")]
)
def test_a_study_reads_a_run_with_the_file_of_its_spec(
    trained: PlannedRun, tmp_path: Path, part: EvaluatePart | ExplainPart
) -> None:
    store, requested = Store(tmp_path / "r"), request_follow_up(part, [trained.spec])
    before, after = (0, requested.count), (requested.count, 0)
    for counts in (before, after):
        section = plan_follow_up(requested, [trained], [], lambda run: False, store)
        assert ((section.done, section.left), section.refusal) == (counts, "")
        assert execute_follow_ups([section], store.root) == 0
