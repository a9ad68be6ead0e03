"""``shipbench export`` and ``predict``: the exported file alone reproduces the predictions of the run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from shipbench.cli import app
from shipbench.data.images import decode
from shipbench.errors import InputError
from shipbench.results.loading import load_predictions
from shipbench.results.store import Store
from shipbench.runs import export
from shipbench.runs.export import load_exported
from tests.cli.builders import run_of
from tests.cli.conftest import Trained
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree
from tests.methods.exports import probabilities_of

METHODS = ["ship", "vpt-deep", "vpt-shallow", "linear"]


@pytest.fixture(scope="module")
def every_method(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``study`` copies."""
    folder = tmp_path_factory.mktemp("every_method")
    data = vtab_tree(folder / "data", tasks=("dtd",))
    tiny = ("--backbone", "test_vit", "--checkpoint", "random", "--set", "image_size=64", "--epochs", "2")
    # An exported model predicts in fp32, but auto trains in bf16 on a processor with instructions for it.
    tiny = (*tiny, "--precision", "fp32")
    line = ("run", *tiny, "--method", "all", "--tasks", "dtd", "--data", data, "--results", folder / "r")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIPBENCH_CACHE", str(folder / "cache"))
        assert not app([*map(str, line)], standalone_mode=False)
    return folder


@pytest.fixture
def study(every_method: Path, tmp_path: Path, cache: Path) -> Path:
    """Runs of all methods in ``r`` beside their data; a test may change both."""
    return shutil.copytree(every_method, tmp_path, dirs_exist_ok=True)


def image_of(study: Path) -> Path:
    return study / "data/dtd" / (study / "data/dtd/test.txt").read_text().split()[0]


@pytest.mark.parametrize("method", METHODS)
def test_an_exported_run_predicts_as_the_run_did(shipbench: Shipbench, study: Path, method: str) -> None:
    run_id, file = run_of(study, method), study / "trained.safetensors"
    outcome = shipbench("export", run_id[:12], file, "--results", study / "r")
    assert outcome.code == 0
    command = f"shipbench predict {file} IMAGE... --checkpoint random"
    assert outcome.err.splitlines()[-1] == f"next: {command}  # classify images"
    exported = load_exported(file, checkpoint="random")
    images = [
        study / "data" / "dtd" / line.split()[0] for line in (study / "data/dtd/test.txt").read_text().splitlines()
    ]
    probabilities = probabilities_of(exported, images)
    stored = load_predictions(study / "r", [run_id])
    assert probabilities.argmax(dim=1).tolist() == stored["predicted"].tolist()
    torch.testing.assert_close(
        probabilities.amax(dim=1), torch.tensor(stored["confidence"].to_numpy()), rtol=1e-4, atol=1e-5
    )
    outcome = shipbench("predict", file, images[0], "--checkpoint", "random", "--top", 3)
    assert outcome.code == 0
    number, percent = outcome.out.partition(f"{images[0]}: ")[2].split(" %")[0].split(" (")
    assert int(number) == stored["predicted"][0]
    assert float(percent) == pytest.approx(100 * stored["confidence"][0], abs=0.1)
    assert outcome.out.count("%") == 3


def test_another_backbone_is_refused_by_its_hash(shipbench: Shipbench, study: Path) -> None:
    file, other = study / "trained.safetensors", study / "other.pth"
    shipbench("export", run_of(study, "ship"), file, "--results", study / "r")
    torch.manual_seed(99)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), other)
    outcome = shipbench("predict", file, image_of(study), "--checkpoint", other)
    assert outcome.code == 2
    assert "was trained on weights" in outcome.err


def test_an_exported_file_names_the_checkpoint_of_its_backbone(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lora.safetensors"
    export.export_run(Store(trained.results), trained.runs["lora"], file)
    # A random initialisation need not be named.
    exported = load_exported(file)
    assert (exported.backbone, exported.checkpoint) == ("test_vit", "random")
    with safe_open(file, "pt") as stream:
        metadata = {**stream.metadata(), "checkpoint": "own.npz"}
    tensors = load_file(file)
    save_file(tensors, file, metadata=export.sealed_metadata(metadata, tensors))
    torch.manual_seed(99)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"but these are \w{12}; pass those in own\.npz with --checkpoint"):
        load_exported(file, checkpoint=str(tmp_path / "other.pth"))

    def unknown(*_: object, **__: object) -> None:
        raise InputError("the hub cannot be reached")

    monkeypatch.setattr(export, "load_backbone", unknown)
    with pytest.raises(InputError, match=r"in own\.npz; name that file with --checkpoint .*the hub cannot be reached"):
        load_exported(file)


@pytest.mark.parametrize(
    ("names", "reason"),
    [('["ant"]', "they name 1 of 3 classes"), ("[" * 100_000, "its values are nested too deeply")],
)
def test_names_of_other_classes_are_refused(names: str, reason: str, trained: Trained, tmp_path: Path) -> None:
    source = Store(trained.results).path("weights", trained.runs["lora"])
    with safe_open(source, "pt") as stream:
        metadata = {**stream.metadata(), "class_names": names}
    tensors = load_file(source)
    save_file(tensors, tmp_path / "lora.safetensors", metadata=export.sealed_metadata(metadata, tensors))
    with pytest.raises(InputError, match=rf"its metadata are damaged \({reason}\)"):
        load_exported(tmp_path / "lora.safetensors")


def test_runs_without_weights_and_damaged_files_are_refused(shipbench: Shipbench, study: Path) -> None:
    full, file = run_of(study, "full"), study / "f.safetensors"
    assert "keeps no weights" in shipbench("export", full, file, "--results", study / "r").err
    missing = study / "r" / "weights" / f"{run_of(study, 'ship')}.safetensors"
    missing.unlink()
    assert f"{missing} is missing" in shipbench("export", missing.stem, file, "--results", study / "r").err
    assert "there is no run" in shipbench("export", "nothing", file, "--results", study / "r").err
    assert not file.exists()
    (study / "junk.safetensors").write_bytes(b"junk")
    assert shipbench("predict", study / "junk.safetensors", image_of(study)).code == 2
    (study / "junk.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    outcome = shipbench("predict", study / "junk.safetensors", image_of(study))
    assert "junk.safetensors is a Git LFS pointer" in outcome.err
    shipbench("export", run_of(study, "linear"), file, "--results", study / "r")
    outcome = shipbench("predict", file, study / "nothing.png", "--checkpoint", "random")
    assert outcome.code == 2
    assert "nothing.png" in outcome.err


def test_a_photograph_is_read_upright_and_a_test_image_as_stored(shipbench: Shipbench, study: Path) -> None:
    file = study / "trained.safetensors"
    shipbench("export", run_of(study, "linear"), file, "--results", study / "r")
    exported = load_exported(file, checkpoint="random")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    exif = Image.Exif()
    # The camera stored the scene turned by 90 degrees.
    exif[0x0112] = 6
    Image.fromarray(pixels).save(study / "upright.png")
    Image.fromarray(np.rot90(pixels)).save(study / "phone.png", exif=exif)
    upright, phone = probabilities_of(exported, [study / "upright.png", study / "phone.png"])
    assert torch.equal(upright, phone)
    assert decode((study / "phone.png").read_bytes(), "phone.png").size == (40, 60)


def test_an_image_that_is_a_folder_or_no_image_is_refused_by_name(shipbench: Shipbench, study: Path) -> None:
    file = study / "trained.safetensors"
    shipbench("export", run_of(study, "linear"), file, "--results", study / "r")
    (study / "photo.gif").write_bytes(b"GIF89a")
    for name, words in (("data", "is a folder; name image files"), ("photo.gif", "cannot be decoded: the gif file is")):
        outcome = shipbench("predict", file, study / name, "--checkpoint", "random")
        assert outcome.code == 2
        assert f"{study / name} {words}" in outcome.err


def test_an_unreadable_image_keeps_no_other_from_being_classified(
    shipbench: Shipbench, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lora.safetensors"
    assert shipbench("export", trained.runs["lora"], file, "--results", trained.results).code == 0
    missing, broken = tmp_path / "missing.png", tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    line = ("predict", file, missing, trained.photograph, broken, "--checkpoint", "random")
    outcome = shipbench(*line)
    assert outcome.code == 1
    assert [text.split(": ")[0] for text in outcome.out.splitlines()] == [str(trained.photograph)]
    # All three classes, although the default is five.
    assert sorted(re.findall(r"(\w+) \(\d", outcome.out)) == ["ant", "bee", "wasp"]
    said = [text for text in outcome.err.splitlines() if text.startswith("error: ")]
    assert [str(path) in text for path, text in zip((missing, broken), said, strict=True)] == [True, True]
    outcome = shipbench(*line, "--json")
    document = json.loads(outcome.out)
    assert outcome.code == 1
    assert [row["image"] for row in document["images"]] == [str(trained.photograph)]
    guesses = document["images"][0]["classes"]
    assert {(guess["number"], guess["name"]) for guess in guesses} == {(0, "ant"), (1, "bee"), (2, "wasp")}
    assert sum(guess["probability"] for guess in guesses) == pytest.approx(1)
    assert [row["image"] for row in document["unreadable"]] == [str(missing), str(broken)]
    outcome = shipbench("predict", file, missing, broken, "--checkpoint", "random", "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"none of the 2 images can be read:\n- image {missing} does not exist" in outcome.err
    # Without a file at all, no backbone is loaded.
    monkeypatch.setattr(export, "load_exported", lambda *_, **__: pytest.fail("a backbone was loaded"))
    assert shipbench("predict", file, missing, tmp_path).code == 2


def test_a_file_without_a_tensor_that_its_method_trains_is_refused(trained: Trained, tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    export.export_run(Store(trained.results), trained.runs["lora"], file)
    tensors = load_file(file)
    with safe_open(file, "pt") as stream:
        metadata = stream.metadata()
    # As written by another version of the method, where the tensor has another name.
    del tensors["head.bias"]
    save_file(tensors, file, metadata=export.sealed_metadata(metadata, tensors))
    with pytest.raises(InputError, match="does not hold the weights of method lora as it is installed here"):
        load_exported(file)


@pytest.mark.parametrize("change", ["a weight", "a setting", "no seal"])
def test_a_file_that_was_changed_after_its_export_is_refused(shipbench: Shipbench, study: Path, change: str) -> None:
    file = study / "trained.safetensors"
    shipbench("export", run_of(study, "ship"), file, "--results", study / "r")
    tensors = load_file(file)
    with safe_open(file, "pt") as stream:
        metadata = dict(stream.metadata())
    if change == "a weight":
        tensors["head.bias"] = tensors["head.bias"] + 1
    elif change == "a setting":
        metadata["task"] = "svhn"
    else:
        del metadata["sha256"]
    save_file(tensors, file, metadata=metadata)
    outcome = shipbench("predict", file, image_of(study), "--checkpoint", "random")
    assert outcome.code == 2
    assert "its content is not what was written; export the run again" in outcome.err
