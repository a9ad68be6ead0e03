"""``shipbench run --checkpoint FILE``: the first line, the record, and the id that planning and runs agree on."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from shipbench import RunSpec, load_results, run
from shipbench.events import Event, Note
from tests.backbones import layouts
from tests.conftest import Outcome
from tests.data.builders import vtab_tree

Shipbench = Callable[..., Outcome]
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
