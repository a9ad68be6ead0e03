"""``shipbench explain``: figures and features of finished runs, from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from timm.models.vision_transformer import VisionTransformer

from shipbench import load_results
from shipbench.backbones import load_backbone, preprocessing_of
from shipbench.data.framing import resize
from shipbench.errors import InputError
from shipbench.explaining import explain
from shipbench.explaining.choosing import choose_images
from shipbench.explaining.explain import ExplainOptions, figure_names, plan_explanation
from shipbench.explaining.figures import ExplainedImage, montage
from shipbench.explaining.reading import read_blocks
from shipbench.hardware.precision import ComputeContext
from shipbench.results.loading import load_predictions
from shipbench.results.sealed import is_sealed, read_table
from shipbench.results.store import RunTables, Store
from shipbench.runs.export import Exported
from tests.cli.builders import run_of
from tests.cli.conftest import Trained
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree
from tests.results.test_store import make_record
from tests.tasks.pictures import NAMES, image_folder

SMALL = (
    *("--backbone", "test_vit", "--checkpoint", "random", "--device", "cpu", "--jobs", "1"),
    *("--set", "image_size=64", "--epochs", "1", "--precision", "fp32"),
)


@pytest.fixture
def study(shipbench: Shipbench, tmp_path: Path, cache: Path) -> Path:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    methods = "ship,full"
    line = ("run", "--method", methods, "--tasks", "dtd", "--data", data, *SMALL, "--results", tmp_path / "r")
    assert shipbench(*line).code == 0
    return tmp_path


def test_test_images_right_and_wrong_are_explained_by_a_seeded_choice(
    shipbench: Shipbench, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headings: dict[str, str] = {}

    def kept(images: Sequence[ExplainedImage], title: str) -> Figure:
        headings.update({image.name: image.heading for image in images})
        return montage(images, title)

    monkeypatch.setattr(explain, "montage", kept)
    run_id = run_of(study, "ship")
    command = ("explain", run_id, "--results", study / "r", "--data", study / "data", "--json", "--output")
    outcome = shipbench(*command, study / "e")
    assert outcome.code == 0, outcome.err
    facts = json.loads(outcome.out)
    stored = load_predictions(study / "r", [run_id]).set_index("index")
    places = [int(image["name"].removeprefix("test-")) for image in facts["images"]]
    assert 1 < len(places) <= 8
    assert [image["right"] for image in facts["images"]] == [
        bool(stored.loc[place, "label"] == stored.loc[place, "predicted"]) for place in places
    ]
    verdicts = [image["right"] for image in facts["images"]]
    assert verdicts == sorted(verdicts, reverse=True)
    firsts = {image["right"]: f"blocks-{image['name']}.png" for image in reversed(facts["images"])}
    assert (facts["seed"], facts["levels"]) == (0, [0, 1, 2, 3, 4, 5])
    for place, image in zip(places, facts["images"], strict=True):
        assert [round(sum(block.values()), 5) for block in image["prompt_attention"]] == [0.1] * 6
        assert image["predicted"] == stored.loc[place, "predicted"]
        assert image["confidence"] == pytest.approx(stored.loc[place, "confidence"], abs=1e-6)
        guess = f"class {image['predicted']} ({100 * image['confidence']:.0f} %)"
        mistaken = f"class {stored.loc[place, 'label']}, taken for\n{guess}"
        assert headings[image["name"]] == (guess if image["right"] else mistaken)
        guided = [block for block, shares in enumerate(image["prompt_attention"]) if "attribute" in shares]
        assert set(image["guiding_patches"]) <= {str(block) for block in guided} != set()
    names = {path.name for path in (study / "e").iterdir()}
    assert {"montage.png", "prompts.png", "explanation.json"} < names
    assert {name for name in names if name.startswith("blocks-")} == set(firsts.values())
    with Image.open(study / "e" / "montage.png") as image:
        assert image.width > 1000
        assert np.asarray(image.convert("L")).std() > 10
    assert json.loads(shipbench(*command, study / "again").out)["images"] == facts["images"]
    other = json.loads(shipbench(*command, study / "other", "--seed", 1).out)
    assert [image["name"] for image in other["images"]] != [image["name"] for image in facts["images"]]
    assert other["seed"] == 1


def test_named_images_are_read_as_the_run_read_them_without_its_data(
    shipbench: Shipbench, tmp_path: Path, cache: Path
) -> None:
    folder, other = (image_folder(tmp_path / name, {"train": (3, 3, 3), "test": (1, 1, 1)}) for name in ("photos", "b"))
    (other / "test" / "ant" / "0.png").unlink()
    task = tmp_path / "photos.toml"
    task.write_text('[suite]\nname = "own"\n[[task]]\nname = "photos"\nsource = "folder:photos"\nresize = "crop"\n')
    assert shipbench("run", "--method", "bitfit", "--tasks", task, *SMALL, "--results", tmp_path / "r").code == 0
    (run_id,) = load_results(tmp_path / "r")["run_id"]
    images = [folder / "test" / name / "0.png" for name in ("ant", "bee")]
    command = ("explain", run_id, "--results", tmp_path / "r", "--output", tmp_path / "e")
    outcome = shipbench(*command, *images, "--json")
    assert outcome.code == 0, outcome.err
    names = {"blocks-0.png", "blocks-0-2.png", "explanation.json"}
    assert {path.name for path in (tmp_path / "e").iterdir()} == names
    assert f"next: look at the figure in {tmp_path / 'e' / 'blocks-0.png'}" in outcome.err
    stored = load_predictions(tmp_path / "r", [run_id])
    facts = json.loads(outcome.out)["images"]
    assert json.loads(outcome.out)["seed"] is None
    assert [image["predicted"] for image in facts] == stored["predicted"].tolist()[:2]
    assert [image["confidence"] for image in facts] == pytest.approx(stored["confidence"].tolist()[:2], abs=1e-6)

    planned = plan_explanation(
        Store(tmp_path / "r"), run_id, ExplainOptions(tuple(images), device="cpu"), features=False
    )
    frozen, adapted, _ = planned.read(resize(Image.open(images[0]), 64, "crop"))
    assert not torch.equal(frozen[-1].patches, adapted[-1].patches)
    backbone, preprocessing = (
        load_backbone("test_vit", checkpoint="random", image_size=64),
        planned.exported.preprocessing,
    )
    pixels = torch.from_numpy(resize(Image.open(images[0]), 64, "crop").copy()) / 255
    normalised = (pixels - torch.tensor(preprocessing.mean)) / torch.tensor(preprocessing.std)
    expected = read_blocks(backbone, normalised.permute(2, 0, 1).unsqueeze(0), backbone, "the frozen backbone")
    assert torch.equal(frozen[-1].patches, expected[-1].patches)
    headings = [image.heading for image in explain._photographs(planned)[0]]
    assert headings == [f"{NAMES[each['predicted']]} ({100 * each['confidence']:.0f} %)" for each in facts]
    outcome = shipbench(*command, "--on", f"folder:{other}")
    assert outcome.code == 2
    assert f"b does not hold the test images of run {run_id}; name their source with --on" in outcome.err


def test_named_images_are_explained_beside_unreadable_ones(
    shipbench: Shipbench, trained: Trained, tmp_path: Path
) -> None:
    missing, broken = tmp_path / "missing.png", tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    options = ("--results", trained.results, "--output", tmp_path / "e", "--device", "cpu", "--json")
    outcome = shipbench("explain", trained.runs["lora"], missing, broken, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert "none of the 2 images can be read" in outcome.err
    assert not (tmp_path / "e").exists()
    outcome = shipbench("explain", trained.runs["lora"], missing, trained.photograph, broken, *options)
    assert outcome.code == 1
    facts = json.loads(outcome.out)
    assert [image["name"] for image in facts["images"]] == ["0"]
    assert [row["image"] for row in facts["unreadable"]] == [str(missing), str(broken)]
    assert [line[:7] for line in outcome.err.splitlines() if "missing.png" in line or "broken.jpg" in line] == [
        "error: "
    ] * 2
    assert (tmp_path / "e" / "blocks-0.png").exists()


def test_figures_go_to_a_folder_of_the_run_unless_another_is_named(
    shipbench: Shipbench, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = lambda planned, output: ([output / "a.png"], {"unreadable": []})  # noqa: E731
    monkeypatch.setattr("shipbench.explaining.explain.explain", drawn)
    line = ("explain", trained.runs["ship"], trained.photograph, "--results", trained.results, "--device", "cpu")
    file = Path("explanations") / trained.runs["ship"] / "a.png"
    outcome = shipbench(*line)
    assert (outcome.out, outcome.err.splitlines()[-1]) == (f"{file}\n", f"next: look at the figure in {file}")
    assert shipbench(*line, "--output", tmp_path).out == f"{tmp_path / 'a.png'}\n"


def test_patches_other_than_those_of_the_frozen_backbone_are_refused(tmp_path: Path) -> None:
    def backbone() -> VisionTransformer:
        return load_backbone("test_vit", checkpoint="random", image_size=32, architecture={"depth": 1})

    # A frame of 8 pixels around the image makes a patch more in either direction.
    model = Vpt(backbone(), 3, VptConfig(location="pad", prompt_length=8), deep=False).eval()
    exported = Exported(model, preprocessing_of(backbone()), "a1", "vpt-shallow", "dtd")
    planned = explain.Explanation(Store(tmp_path), make_record(method="vpt-shallow"), tmp_path, ExplainOptions())
    vars(planned).update(exported=exported, frozen=backbone(), compute=ComputeContext(torch.device("cpu"), "fp32"))
    with pytest.raises(InputError, match="its images have other patches than those of the frozen backbone; --features"):
        planned.read(np.zeros((32, 32, 3), dtype=np.uint8))


def test_every_figure_has_a_name() -> None:
    images = [Path(name) for name in ("a/0.png", "b/0.png", "0-2.png", "c/0.jpg")]
    assert figure_names(images) == ["0", "0-2", "0-2-2", "0-3"]


def test_figures_have_names_of_their_own_on_every_file_system() -> None:
    """On Windows and on most Macs, two names that differ in case only are one."""
    assert figure_names([Path("a/Cat.png"), Path("b/cat.png")]) == ["Cat", "cat-2"]


def test_right_images_come_before_wrong_ones_and_the_first_of_each_is_drawn(tmp_path: Path) -> None:
    predictions = {"index": range(6), "label": [0] * 6, "predicted": [0, 1, 0, 1, 0, 1], "confidence": [0.5] * 6}
    Store(tmp_path).write(make_record(run_id="a1"), RunTables(predictions=predictions))
    chosen = choose_images(Store(tmp_path), "a1", 2, 0)
    assert [image.predicted for image in chosen] == [0, 0, 1, 1]
    assert explain._first_of_each(chosen) == [chosen[0], chosen[2]]  # type: ignore[arg-type]


def test_features_are_stored_sealed_in_the_order_of_the_test_images(shipbench: Shipbench, study: Path) -> None:
    run_id = run_of(study, "ship")
    outcome = shipbench("explain", run_id, "--features", "--results", study / "r", "--data", study / "data")
    assert outcome.code == 0, outcome.err
    file = study / "r" / "features" / f"{run_id}.parquet"
    assert outcome.out.strip() == str(file)
    assert is_sealed(file)
    frame = read_table(file).table.to_pandas()
    stored = load_predictions(study / "r", [run_id])
    assert frame["label"].tolist() == stored["label"].tolist()
    assert set(frame["run_id"]) == {run_id}
    from safetensors.torch import load_file

    weights = load_file(study / "r" / "weights" / f"{run_id}.safetensors")
    features = torch.from_numpy(frame[[name for name in frame if name.startswith("f")]].to_numpy())
    logits = features @ weights["head.weight"].T + weights["head.bias"]
    assert logits.argmax(dim=1).tolist() == stored["predicted"].tolist()
    line = ("--method", "ship", "--tasks", "dtd", "--data", study / "data", *SMALL, "--results", study / "r")
    assert shipbench("run", *line).code == 0
    assert file.exists()
    # They are those of the earlier weights.
    assert shipbench("run", *line, "--force").code == 0
    assert not file.exists()


def test_what_cannot_be_explained_is_refused_and_nothing_is_written(shipbench: Shipbench, study: Path) -> None:
    image_folder(study / "photos", {"": (3, 3, 3)})
    before = sorted(study.rglob("*"))
    for arguments, words in (
        ((run_of(study, "full"),), "keeps no weights"),
        ((run_of(study, "ship"), study / "nothing.png"), "nothing.png does not exist; name image files"),
        ((run_of(study, "ship"), study / "photos"), "photos is a folder; name image files"),
        ((run_of(study, "ship"), "--on", f"folder:{study / 'photos'}"), "has 3 classes, but run"),
        ((run_of(study, "ship"),), "set SHIPBENCH_DATA"),
        ((run_of(study, "ship"), study / "x.png", "--features"), "leave out the images"),
        ((run_of(study, "ship"), study / "x.png", "--on", "dtd"), "leave it out, or leave out the images"),
        ((run_of(study, "ship"), "--features"), "draws no figures; leave out --output"),
        ((run_of(study, "ship"), "--output", study / "photos" / "ant" / "0.png"), "0.png is a file; name a folder"),
        ((run_of(study, "ship"), "--device", "cuda:7"), "device 'cuda:7' is not available"),
        (("nothing",), "there is no run 'nothing'"),
    ):
        outcome = shipbench("explain", "--results", study / "r", "--output", study / "e", *arguments)
        assert outcome.code == 2, arguments
        assert words in outcome.err, outcome.err
    assert sorted(path for path in study.rglob("*") if "cache" not in path.parts) == [
        path for path in before if "cache" not in path.parts
    ]
