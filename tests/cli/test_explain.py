"""``shipbench explain``: figures and features of finished runs, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shipbench import load_results
from shipbench.results.loading import load_predictions
from shipbench.results.sealed import is_sealed, read_parquet
from tests.conftest import Outcome
from tests.data.builders import vtab_tree
from tests.tasks.pictures import image_folder

Shipbench = Callable[..., Outcome]
SMALL = (
    *("--backbone", "test_vit", "--checkpoint", "random", "--device", "cpu", "--jobs", "1"),
    *("--set", "image_size=64", "--epochs", "1", "--precision", "fp32"),
)


@pytest.fixture
def study(shipbench: Shipbench, tmp_path: Path, cache: Path) -> Path:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    methods = "ship,linear,full"
    line = ("run", "--method", methods, "--tasks", "dtd", "--data", data, *SMALL, "--results", tmp_path / "r")
    assert shipbench(*line).code == 0
    return tmp_path


def run_of(study: Path, method: str) -> str:
    frame = load_results(study / "r")
    return str(frame.loc[frame["method"] == method, "run_id"].item())


def test_test_images_right_and_wrong_are_explained_by_a_seeded_choice(shipbench: Shipbench, study: Path) -> None:
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
    for image in facts["images"]:
        assert [round(sum(block.values()), 5) for block in image["prompt_attention"]] == [0.1] * 6
    names = {path.name for path in (study / "e").iterdir()}
    assert {"montage.png", "prompts.png", "explanation.json"} < names
    assert sum(name.startswith("blocks-test-") for name in names) in (1, 2)
    with Image.open(study / "e" / "montage.png") as image:
        assert image.width > 1000
        assert np.asarray(image.convert("L")).std() > 10
    assert json.loads(shipbench(*command, study / "again").out)["images"] == facts["images"]
    other = json.loads(shipbench(*command, study / "other", "--seed", 1).out)
    assert [image["name"] for image in other["images"]] != [image["name"] for image in facts["images"]]


def test_named_images_are_explained_without_the_data_of_the_run(shipbench: Shipbench, study: Path) -> None:
    folder = image_folder(study / "photos", {"": (1, 1, 1)})
    images = [folder / name / "0.png" for name in ("ant", "bee")]
    command = ("explain", run_of(study, "linear"), *images, "--results", study / "r", "--output", study / "e")
    outcome = shipbench(*command)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in (study / "e").iterdir()} == {"blocks-0.png", "blocks-0-2.png", "explanation.json"}
    assert f"next: open {study / 'e' / 'blocks-0.png'}" in outcome.err


def test_features_are_stored_sealed_in_the_order_of_the_test_images(shipbench: Shipbench, study: Path) -> None:
    run_id = run_of(study, "ship")
    outcome = shipbench("explain", run_id, "--features", "--results", study / "r", "--data", study / "data")
    assert outcome.code == 0, outcome.err
    file = study / "r" / "features" / f"{run_id}.parquet"
    assert outcome.out.strip() == str(file)
    assert is_sealed(file)
    frame = read_parquet(file).to_pandas()
    stored = load_predictions(study / "r", [run_id])
    assert frame["label"].tolist() == stored["label"].tolist()
    assert set(frame["run_id"]) == {run_id}
    from safetensors.torch import load_file

    weights = load_file(study / "r" / "weights" / f"{run_id}.safetensors")
    features = torch.from_numpy(frame[[name for name in frame if name.startswith("f")]].to_numpy())
    logits = features @ weights["head.weight"].T + weights["head.bias"]
    assert logits.argmax(dim=1).tolist() == stored["predicted"].tolist()


def test_what_cannot_be_explained_is_refused_and_nothing_is_written(shipbench: Shipbench, study: Path) -> None:
    image_folder(study / "photos", {"": (3, 3, 3)})
    before = sorted(study.rglob("*"))
    for arguments, words in (
        ((run_of(study, "full"),), "keeps no weights"),
        ((run_of(study, "ship"), study / "nothing.png"), "nothing.png does not exist; name image files"),
        ((run_of(study, "ship"), study / "photos"), "photos is a folder; name image files"),
        ((run_of(study, "ship"), "--on", f"folder:{study / 'photos'}"), "has 3 classes, but run"),
        ((run_of(study, "ship"),), "set SHIPBENCH_DATA"),
        (("nothing",), "there is no run 'nothing'"),
    ):
        outcome = shipbench("explain", *arguments, "--results", study / "r", "--output", study / "e")
        assert outcome.code == 2, arguments
        assert words in outcome.err, outcome.err
    assert sorted(path for path in study.rglob("*") if "cache" not in path.parts) == [
        path for path in before if "cache" not in path.parts
    ]
