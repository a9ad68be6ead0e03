"""``shipbench export --program``: a file that torch runs without shipbench and timm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shipbench.backbones import load_backbone, preprocessing_of
from shipbench.errors import InputError
from shipbench.methods.ship import Ship, ShipConfig
from shipbench.results.store import Store
from shipbench.runs.export import Exported, load_exported
from shipbench.runs.export import predict as classify
from shipbench.runs.program import _program, export_program
from tests.cli.conftest import Trained
from tests.cli.without_shipbench import run_without_shipbench
from tests.conftest import Outcome

Shipbench = Callable[..., Outcome]
# Otherwise pytest collects what torch logs of every operation that it traces.
pytestmark = pytest.mark.usefixtures("quiet_tracer")
CODE = """
import json, numpy, torch
from PIL import Image
about = {"about.json": ""}
model = torch.export.load("run.pt2", extra_files=about).module()
size = json.loads(about["about.json"])["image_size"]
photo = Image.open(PHOTO).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
pixels = torch.tensor(numpy.array(photo)).permute(2, 0, 1)[None] / 255
many = torch.cat([torch.zeros(4, *pixels.shape[1:]), pixels])
rows = torch.cat([model(pixels), model(many)[4:]]).softmax(1)
print(json.dumps([json.loads(about["about.json"]), rows.tolist()]))
"""


def test_a_program_predicts_without_shipbench(shipbench: Shipbench, trained: Trained, tmp_path: Path) -> None:
    run = (trained.runs["ship"], "--results", trained.results)
    assert shipbench("export", run[0], tmp_path / "run.safetensors", *run[1:]).code == 0
    outcome = shipbench("export", run[0], tmp_path / "run.pt2", *run[1:], "--program", "--checkpoint", "random")
    assert outcome.code == 0, outcome.err
    assert "takes pixels (images, 3, 64, 64) in [0, 1]" in outcome.out
    photograph = trained.photograph
    about, rows = json.loads(run_without_shipbench(CODE.replace("PHOTO", repr(str(photograph))), tmp_path))
    exported = load_exported(tmp_path / "run.safetensors", checkpoint="random")
    expected = classify(exported, [photograph]).expand(2, -1)
    torch.testing.assert_close(torch.tensor(rows), expected, rtol=1e-4, atol=1e-5)
    assert about == {
        "run_id": run[0],
        "method": "ship",
        "task": "insects",
        "image_size": 64,
        "resize": "squash",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "class_names": ["ant", "bee", "wasp"],
        "torch_version": torch.__version__,
    }


@pytest.mark.parametrize("attention", ["coupled", "all prompts attend", "no attributes"])
def test_every_form_of_the_prompted_pass_becomes_a_program(attention: str) -> None:
    torch.manual_seed(0)
    backbone = load_backbone("test_vit", checkpoint="random", image_size=64, architecture={"depth": 3})
    config = {
        "coupled": ShipConfig(attention="coupled"),
        "all prompts attend": ShipConfig(prompt_attention="all"),
        "no attributes": ShipConfig(attribute_length=0),
    }[attention]
    model = Ship(backbone, 3, [0, 1], torch.randn(4, backbone.embed_dim), config).eval()
    inputs = preprocessing_of(backbone)
    program = _program(Exported(model, inputs, "", "ship", "")).module()
    pixels = torch.rand(3, 3, 64, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (inputs.mean, inputs.std))
    with torch.no_grad():
        for count in (1, 3):
            expected = model((pixels[:count] - mean) / std)
            torch.testing.assert_close(program(pixels[:count]), expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_become_a_program_is_refused(shipbench: Shipbench, trained: Trained, tmp_path: Path) -> None:
    results = ("--results", trained.results)
    file = tmp_path / "run.pt2"
    for words, message in (
        ((trained.runs["full"], file, "--program"), "keeps no weights"),
        ((trained.runs["ship"], file, "--program", "--merged"), "give one of them"),
        ((trained.runs["ship"], tmp_path / "run.bin", "--program"), "writes a .pt2 file; name"),
        ((trained.runs["ship"], file, "--checkpoint", "random"), "is for --merged and --program"),
    ):
        outcome = shipbench("export", *words, *results)
        assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert not list(tmp_path.iterdir())


def test_a_model_that_torch_cannot_trace_is_refused_by_its_method(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untraceable(model: Ship, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, : int(images.sum())]

    monkeypatch.setattr(Ship, "forward", untraceable)
    with pytest.raises(InputError, match=r"cannot become a program.*cannot trace ship: .*export it without --program"):
        export_program(Store(trained.results), trained.runs["ship"], tmp_path / "run.pt2", checkpoint="random")
    assert not list(tmp_path.iterdir())
