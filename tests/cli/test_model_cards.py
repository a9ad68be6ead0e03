"""Cards of pushed runs, and the example that each card gives."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from shipbench import load_results
from shipbench.backbones.licence import licence_of
from shipbench.backbones.pinned import DEMO_BACKBONE
from shipbench.data.framing import resize
from shipbench.record import ACCURACY, MEAN_PER_CLASS, RunRecord
from shipbench.results.loading import load_predictions
from shipbench.results.store import RunTables, Store
from shipbench.runs import publication
from shipbench.runs.export import load_exported
from shipbench.runs.finished import trained_record
from shipbench.runs.model_card import Card, model_card
from shipbench.statistics import bootstrap_interval
from shipbench.tasks.catalogue import Resize
from tests.cli.conftest import Trained
from tests.cli.without_shipbench import run_without_shipbench
from tests.conftest import Shipbench
from tests.hub import Hub, card_of
from tests.methods.exports import probabilities_of
from tests.results.test_store import make_record

pytestmark = pytest.mark.usefixtures("quiet_tracer")


def record_of(trained: Trained) -> RunRecord:
    """Return the record of the LoRA run."""
    return trained_record(Store(trained.results), trained.runs["lora"])


def example_of(card: str) -> str:
    """Return the Python code of a card; its last line prints the classes and probabilities as JSON instead."""
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    lines = code.splitlines()
    assert 4 <= len([line for line in lines if not line.startswith(("import", "from")) and line]) <= 5
    assert lines[-1] == "print(probabilities.topk(3))"
    return "\n".join([*lines[:-1], "import json; print(json.dumps(probabilities.tolist()))"])


@pytest.mark.parametrize(
    ("method", "form", "library"), [("vpt-deep", "model.pt2", "pytorch"), ("peft-lora", "model.safetensors", "timm")]
)
def test_the_example_of_the_card_predicts_as_the_run_does_without_shipbench(
    shipbench: Shipbench, trained: Trained, hub: Hub, tmp_path: Path, method: str, form: str, library: str
) -> None:
    run = (trained.runs[method], "someone/insects", "--results", trained.results, "--checkpoint", "random")
    outcome = shipbench("push", *run)
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines()[-1].startswith("next: shipbench predict hf:someone/insects IMAGE...")
    assert set(hub.repositories) == {"models/someone/insects"}
    assert hub.private == {"models/someone/insects": False}
    files = hub.repositories["models/someone/insects"]
    assert set(files) == {"README.md", "config.json", "record.json", "shipbench.safetensors", form}
    header, card = card_of(hub, "models/someone/insects")
    assert header["library_name"] == library
    photograph = trained.photograph
    outcome = shipbench("predict", "hf:someone/insects", photograph, "--checkpoint", "random", "--json")
    assert outcome.code == 0, outcome.err
    expected = {row["name"]: row["probability"] for row in json.loads(outcome.out)["images"][0]["classes"]}
    shutil.copyfile(photograph, tmp_path / "photo.jpg")
    cache = {"HF_HUB_CACHE": str(tmp_path / "other-cache"), "HF_HUB_DISABLE_XET": "1"}
    printed = run_without_shipbench(example_of(card), tmp_path, HF_ENDPOINT=hub.address, **cache)
    probabilities = dict(zip(("ant", "bee", "wasp"), json.loads(printed), strict=True))
    assert probabilities == pytest.approx(expected, abs=1e-4)


def test_timm_creates_the_pushed_model_of_a_convolutional_backbone_with_its_transform(
    shipbench: Shipbench, trained: Trained, hub: Hub, tmp_path: Path
) -> None:
    run = (trained.runs["convolutional"], "someone/a", "--results", trained.results, "--checkpoint", "random")
    assert shipbench("push", *run).code == 0
    for name, content in hub.repositories["models/someone/a"].items():
        (tmp_path / name).write_bytes(content)
    # From a folder, timm 1.0.22 does not read safetensors itself, as it does from the hub.
    model = timm.create_model(f"local-dir:{tmp_path}").eval()
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    transform: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        probabilities = model(transform(Image.open(trained.photograph)).unsqueeze(0)).softmax(dim=1)
    exported = load_exported(tmp_path / "shipbench.safetensors", checkpoint="random")
    torch.testing.assert_close(probabilities, probabilities_of(exported, [trained.photograph]), rtol=1e-4, atol=1e-5)
    assert exported.resize == "crop"
    assert model.pretrained_cfg["label_names"] == ["ant", "bee", "wasp"]
    assert "64 pixels, resized by `crop`" in (tmp_path / "README.md").read_text()


def test_the_record_fills_the_card(shipbench: Shipbench, trained: Trained, hub: Hub, tmp_path: Path) -> None:
    run_id = trained.runs["lora"]
    line = ("push", run_id[:10], "someone/a", "--results", trained.results, "--checkpoint", "random")
    outcome = shipbench(*line, "--with-results", "--private")
    assert outcome.code == 0, outcome.err
    assert hub.private == {"models/someone/a": True, "datasets/someone/a": True}
    header, card = card_of(hub, "models/someone/a")
    record = load_results(trained.results).set_index("run_id").loc[run_id]
    predictions = load_predictions(trained.results, [run_id])
    interval = bootstrap_interval((predictions["label"] == predictions["predicted"]).to_numpy(float))
    for words in (
        f"| test accuracy | **{100 * record['final_test_acc']:.1f} %** |",
        f"| 95 % interval of it | {100 * interval.low:.1f} to {100 * interval.high:.1f} % |",
        "| test images | 6 |",
        "| training images | 24 |",
        f"| data fingerprint | `{record['data_fingerprint']}` |",
        "| draw | train 18, val 6 of train, test 6 held out of train |",
        "Classes in the order of their numbers, from 0: ant, bee, wasp.",
        "The backbone is a random initialisation",
        f"weights `{record['backbone_sha256']}`",
        "| backbone checkpoint | `random` |",
        f": {record['trainable_params']:,} trained parameters, {record['trainable_params_without_head']:,} without the",
    ):
        assert words in card
    assert "license" not in header
    assert header["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(record["final_test_acc"])  # type: ignore[index]
    stored = json.loads(hub.repositories["models/someone/a"]["record.json"])
    assert stored["run_id"] == run_id
    assert "host" not in stored
    assert stored["stated_acc"] is None
    config = json.loads(hub.repositories["models/someone/a"]["config.json"])
    assert (config["num_classes"], config["model_args"]) == (3, {"img_size": 64})
    assert config["pretrained_cfg"]["fixed_input_size"]
    assert (config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"]) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(hub.repositories["models/someone/a"]["shipbench.safetensors"])
    with safe_open(weights, "pt") as stream:
        assert stream.metadata()["run_id"] == run_id


@pytest.mark.parametrize(
    ("backbone", "checkpoint", "metadata", "words"),
    [
        (
            "vit_base_patch16_224.augreg_in21k",
            "",
            {"license": "apache-2.0", "base_model": "timm/vit_base_patch16_224.augreg_in21k"},
            "have the licence apache-2.0.",
        ),
        # The hub refuses names of licences that it does not have.
        (
            "vit_small_patch16_dinov3.lvd1689m",
            "",
            {
                "license": "other",
                "license_name": "dinov3-license",
                "base_model": "timm/vit_small_patch16_dinov3.lvd1689m",
            },
            "have the licence dinov3-license.",
        ),
        ("dla60_res2net", "", {}, "timm names no licence"),
        (DEMO_BACKBONE, "", {"license": ["mit", "apache-2.0"]}, "Licences: "),
        ("vit_base_patch16_224.augreg_in21k", "own.pth", {}, "the file `own.pth`, whose licence is not recorded."),
    ],
)
def test_the_card_names_the_licence_of_the_backbone(
    trained: Trained, backbone: str, checkpoint: str, metadata: dict[str, object], words: str
) -> None:
    licence = licence_of(backbone, checkpoint)
    text = model_card(Card("someone/a", record_of(trained), None, licence, True, "squash", ()))
    header = yaml.safe_load(text.split("---\n")[1])
    assert {key: value for key, value in header.items() if key.startswith(("license", "base"))} == metadata
    assert words in text


def test_the_card_names_each_accuracy() -> None:
    record = make_record(final_test_acc=0.25, best_test_acc=0.75, chance_acc=0.125)
    record = replace(record, headline_metric=MEAN_PER_CLASS, final_test_mean_class_acc=0.375)
    record = replace(record, num_classes=2, n_train=8, n_test=5, shots=4)
    licence = licence_of("test_vit", "random")
    text = model_card(Card("someone/a", record, None, licence, True, "squash", ("name",) * 21))
    header = yaml.safe_load(text.split("---\n")[1])
    metric = {"type": "accuracy", "value": 0.25, "name": "test accuracy"}
    assert header["model-index"][0]["results"][0]["metrics"] == [metric]
    for row in (
        "mean per-class accuracy | **37.5 %**",
        "test accuracy | 25.0 %",
        "95 % interval of it | not known: the run keeps no predictions",
        "majority-class accuracy | 12.5 %",
        "test images | 5",
        "training images | 8, 4 per class",
    ):
        assert f"| {row} |" in text
    assert "in `config.json` (`label_names`)" in text
    # torch refuses to name more classes than there are.
    assert "print(probabilities.topk(2))" in text
    single = Card("someone/a", record, bootstrap_interval([1.0]), licence, True, "squash", ())
    assert "| 95 % interval of it | not known: too few images |" in model_card(single)


def test_the_interval_is_that_of_the_metric_of_the_task(tmp_path: Path) -> None:
    labels = np.repeat([0, 1], [360, 40])
    right = np.concatenate([np.arange(360) < 342, np.arange(40) < 20])
    tables = RunTables(predictions={"label": labels, "predicted": np.where(right, labels, 1 - labels)})
    means = {"final_test_acc": float(right.mean()), "final_test_mean_class_acc": 0.725}
    licence, bounds = licence_of("test_vit", "random"), []
    for metric in (MEAN_PER_CLASS, ACCURACY):
        record = make_record(run_id=metric, headline_metric=metric, **means)
        Store(tmp_path).write(record, tables)
        interval = publication._interval(Store(tmp_path), record)
        assert interval is not None
        assert interval.mean == pytest.approx(record.headline_acc)
        text = model_card(Card("someone/a", record, interval, licence, True, "squash", ()))
        bounds += re.findall(r"accuracy \| \*\*(.*) %\*\* \|\n\| 95 % interval of it \| (.*) to (.*) %", text)
    for mean, low, high in bounds:
        assert float(low) < float(mean) < float(high)
    assert [mean for mean, *_ in bounds] == ["72.5", "90.5"]


def test_the_card_prints_every_name_and_command_as_it_is(trained: Trained) -> None:
    settings = {"target_modules": "q|v"}
    record = replace(record_of(trained), checkpoint="my net.npz", settings=settings)
    licence = licence_of("test_vit", record.checkpoint)
    names = ("<other>", "*", "a_b")
    text = model_card(Card("someone/a", record, None, licence, True, "squash", names))
    assert "from 0: \\<other>, \\*, a_b." in text
    assert '| settings | `{"target_modules": "q\\|v"}` |' in text
    assert "\nshipbench predict hf:someone/a photo.jpg --checkpoint 'my net.npz'\n" in text
    # The export of a run that trained every weight holds the whole model.
    whole = replace(record, trainable_params=record.total_params)
    text = model_card(Card("someone/a", whole, None, licence, True, "squash", ()))
    assert "\nshipbench predict hf:someone/a photo.jpg\n" in text


@pytest.mark.parametrize(
    ("packages", "installed", "software"),
    [
        ({}, "shipbench", ""),
        ({"peft_version": "0.20.0"}, "'shipbench[peft]'", ", peft 0.20.0"),
        ({"method_package": "cosine-probe 0.1.0"}, "shipbench cosine-probe", ", cosine-probe 0.1.0"),
    ],
)
def test_the_card_installs_what_the_method_needs(
    trained: Trained, packages: dict[str, str], installed: str, software: str
) -> None:
    record = replace(record_of(trained), **packages)
    text = model_card(Card("someone/a", record, None, licence_of("test_vit", "random"), True, "squash", ()))
    assert f"```sh\npip install {installed}\nshipbench predict hf:someone/a " in text
    assert f"timm {record.timm_version}{software} |" in text


@pytest.mark.parametrize("how", ["squash", "crop"])
def test_the_card_of_a_program_frames_photographs_as_predict_does(trained: Trained, how: Resize) -> None:
    licence = licence_of("test_vit", "random")
    text = model_card(Card("someone/a", record_of(trained), None, licence, False, how, ("name",) * 21))
    (framed,) = re.findall(r"pixels = F.to_tensor\((.*)\)\n", text)
    photo = Image.open(trained.photograph).convert("RGB")
    pixels = np.asarray(eval(framed, {"F": torchvision.transforms.functional, "photo": photo}))
    assert np.array_equal(pixels, resize(photo, 64, how))
    assert "in `config.json` (`class_names`)" in text
