"""``shipbench export --program``: a file that torch runs without shipbench and timm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt

from shipbench.backbones import load_backbone, preprocessing_of
from shipbench.errors import InputError
from shipbench.methods.ship import Ship, ShipConfig
from shipbench.results.store import Store
from shipbench.runs import merged, program
from shipbench.runs.export import Exported, load_exported
from shipbench.runs.finished import checkpoint_to_predict, checkpoint_to_rebuild
from shipbench.runs.merged import export_merged
from shipbench.runs.program import _program, export_program
from shipbench.runs.publication import model_upload
from tests.cli.conftest import Trained
from tests.cli.without_shipbench import run_without_shipbench
from tests.conftest import Shipbench
from tests.methods.exports import probabilities_of
from tests.results.test_store import make_record

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
    expected = probabilities_of(exported, [photograph]).expand(2, -1)
    torch.testing.assert_close(torch.tensor(rows), expected, rtol=1e-4, atol=1e-5)
    assert about == {
        "run_id": run[0],
        "method": "ship",
        "task": "insects",
        "backbone": "test_vit",
        "backbone_sha256": exported.backbone_sha256,
        "checkpoint": "random",
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
    exported = _program(Exported(model, inputs, "", "ship", "")).module()
    pixels = torch.rand(3, 3, 64, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (inputs.mean, inputs.std))
    with torch.no_grad():
        for count in (1, 3):
            expected = model((pixels[:count] - mean) / std)
            torch.testing.assert_close(exported(pixels[:count]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("location", ["pad", "below"])
def test_prompts_in_the_pixels_become_a_program(location: str) -> None:
    torch.manual_seed(0)
    backbone = load_backbone("test_vit", checkpoint="random", image_size=32, architecture={"depth": 1})
    inputs = preprocessing_of(backbone)
    model = Vpt(backbone, 3, VptConfig(location=location, prompt_length=2), deep=False).eval()
    exported = _program(Exported(model, inputs, "", "vpt-shallow", "")).module()
    pixels = torch.rand(3, 3, 32, 32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (inputs.mean, inputs.std))
    with torch.no_grad():
        torch.testing.assert_close(exported(pixels), model((pixels - mean) / std), rtol=1e-4, atol=1e-5)


def test_a_merged_model_names_its_classes_and_how_it_is_loaded(
    shipbench: Shipbench, trained: Trained, tmp_path: Path
) -> None:
    file = tmp_path / 'an "own" model.safetensors'
    # The record knows that the backbone is a random initialisation.
    outcome = shipbench("export", trained.runs["lora"], file, "--merged", "--results", trained.results)
    assert outcome.code == 0, outcome.err
    model = eval(outcome.out.partition("load it with ")[2], {"timm": timm})
    assert model.num_classes == 3
    with safe_open(file, "pt") as stream:
        metadata = stream.metadata()
    assert json.loads(metadata["class_names"]) == ["ant", "bee", "wasp"]
    assert (metadata["resize"], metadata["image_size"]) == ("squash", "64")
    assert (metadata["backbone"], metadata["checkpoint"]) == ("test_vit", "random")
    outcome = shipbench("predict", file, trained.photograph)
    assert (outcome.code, "the plain timm model that 'export --merged' writes" in outcome.err) == (2, True)


def test_predict_refuses_a_program_by_its_kind(shipbench: Shipbench, trained: Trained, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "run.pt2")
    outcome = shipbench("predict", tmp_path / "run.pt2", trained.photograph)
    assert outcome.code == 2
    assert "run.pt2 is a program or an archive; torch loads" in outcome.err
    assert "unpack" not in outcome.err


def test_a_checkpoint_that_is_not_named_is_refused_before_a_backbone_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (merged, program):
        monkeypatch.setattr(module, "load_exported", lambda *_, **__: pytest.fail("a backbone was loaded"))
    store = Store(tmp_path)
    store.write(make_record(run_id="a1", method="lora", checkpoint="my.npz", trainable_params=1, total_params=9))
    store.path("weights", "a1").parent.mkdir()
    store.path("weights", "a1").touch()
    for export in (export_program, export_merged):
        with pytest.raises(InputError, match=r"trained on the weights in my\.npz; name that file with --checkpoint"):
            export(store, "a1", tmp_path / "x")
    with pytest.raises(InputError, match=r"trained on the weights in my\.npz; name that file with --checkpoint"):
        model_upload(store, "a1", "someone/a", tmp_path)
    # The weights of a whole model replace those of the file.
    whole = make_record(checkpoint="my.npz", trainable_params=9, total_params=9)
    assert checkpoint_to_rebuild(whole, None) is None
    assert [checkpoint_to_predict(record) for record in (whole, store.read("a1")) if record] == ["", "my.npz"]


def test_what_cannot_become_a_program_is_refused(shipbench: Shipbench, trained: Trained, tmp_path: Path) -> None:
    results = ("--results", trained.results)
    file = tmp_path / "run.pt2"
    for words, message in (
        ((trained.runs["full"], file, "--program"), "keeps no weights"),
        ((trained.runs["ship"], file), "would not be a program; add --program, or name it"),
        ((trained.runs["lora"], tmp_path / "m.pth", "--merged"), "m.pth " + str(tmp_path / "m.safetensors")),
        # Before a model is loaded, which then could not be written.
        ((trained.runs["ship"], tmp_path, "--program"), "is a folder; name a file"),
        ((trained.runs["ship"], tmp_path), "is a folder; name a file"),
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
