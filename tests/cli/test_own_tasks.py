"""Images of one's own, from the command line to the report and to predictions."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shipbench import RunSpec, load_results, run
from tests.conftest import Shipbench
from tests.tasks.pictures import image_folder, picture

SMALL = (
    *("--backbone", "test_vit", "--checkpoint", "random", "--device", "cpu", "--jobs", "1"),
    *("--set", "image_size=32", "--set", "batch_size=8", "--epochs", "2", "--precision", "fp32"),
)
FILE = """
[suite]
name = "insects"
[[task]]
name = "few"
group = "Field"
source = "folder:bugs"
train = 6
val = 3
metric = "mean-per-class"
[[task]]
name = "crops"
group = "Garden"
source = "folder:bugs"
resize = "crop"
"""


@pytest.fixture
def insects(tmp_path: Path, cache: Path) -> Path:
    image_folder(tmp_path / "bugs", {"": (10, 10, 10)})
    file = tmp_path / "insects.toml"
    file.write_text(FILE)
    return file


def test_a_task_file_is_run_reported_and_used_to_predict(shipbench: Shipbench, insects: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = ("run", "--method", "linear", "--tasks", f"{insects},folder:{insects.parent / 'bugs'}", *SMALL)
    outcome = shipbench(*command, "--results", results)
    assert outcome.code == 0, outcome.err
    for row in ("few (mean per class)", "crops", "mean of groups", "bugs"):
        assert row in outcome.out
    assert "a fifth of each class is held out (6 images)" in outcome.err
    frame = load_results(results).set_index("task")
    few = frame.loc["few"]
    assert (few["suite"], few["group"], few["source"], few["n_train"], few["n_test"]) == (
        *("insects", "Field", "folder"),
        *(9, 6),
    )
    assert json.loads(few["class_names"]) == ["ant", "bee", "wasp"]
    assert json.loads(few["suite_tasks"]) == ["few", "crops"]
    assert few["draw"] == "train 6, val 3 of train, test 6 held out of train"
    assert few["headline_metric"] == "mean-per-class"
    assert frame["final_test_mean_class_acc"].tolist() == pytest.approx(frame["final_test_acc"].tolist())
    assert (frame.loc["bugs", "suite"], frame.loc["bugs", "n_train"]) == ("bugs", 24)
    assert "3 runs: 0 to do, 3 done" in shipbench(*command, "--results", results).err

    assert shipbench("report", "--results", results, "--output", tmp_path / "report").code == 0
    page = (tmp_path / "report" / "report.md").read_text()
    assert "insects" in page
    assert "Garden" in page

    exported, image = tmp_path / "run.safetensors", insects.parent / "bugs" / "bee" / "0.png"
    assert shipbench("export", few["run_id"], exported, "--results", results).code == 0
    named = shipbench("predict", exported, image, "--checkpoint", "random", "--top", "2")
    assert named.code == 0, named.err
    assert named.out.startswith(f"{image}: ")
    assert sum(name in named.out for name in ("ant (", "bee (", "wasp (")) == 2
    (row,) = json.loads(shipbench("predict", exported, image, "--checkpoint", "random", "--json").out)["images"]
    assert row["image"] == str(image)
    assert {guess["name"] for guess in row["classes"]} == {"ant", "bee", "wasp"}
    assert sum(guess["probability"] for guess in row["classes"]) == pytest.approx(1, abs=1e-5)


def test_python_and_the_command_line_agree_on_the_run(shipbench: Shipbench, insects: Path, tmp_path: Path) -> None:
    results, source = tmp_path / "results", f"folder:{insects.parent / 'bugs'}"
    assert shipbench("run", "--method", "linear", "--tasks", source, *SMALL, "--results", results).code == 0
    overrides = {"image_size": 32, "batch_size": 8, "epochs": 2}
    spec = RunSpec(
        *("linear", source),
        overrides=overrides,
        backbone="test_vit",
        checkpoint="random",
        precision="fp32",
        device="cpu",
    )
    record = run(spec)
    assert load_results(results)["run_id"].tolist() == [record.run_id]
    assert (record.num_classes, record.n_train, json.loads(record.class_names)[0]) == (3, 24, "ant")


def test_a_renamed_task_is_not_run_again(shipbench: Shipbench, insects: Path, tmp_path: Path) -> None:
    command = ("run", "--method", "linear", *SMALL, "--results", tmp_path / "results")
    assert shipbench(*command, "--tasks", insects).code == 0
    insects.write_text(FILE.replace("insects", "six-legs").replace('"few"', '"scarce"').replace("Field", "Meadow"))
    again = shipbench(*command, "--tasks", insects)
    assert "2 runs: 0 to do, 2 done" in again.err
    assert "scarce (mean per class)" in again.out
    renamed = (
        "a report shows 1 finished run as task {} of suite insects, as recorded; to change that, repeat with --force"
    )
    for name, before in (("scarce", "few"), ("crops", "crops")):
        assert f"{name}: {renamed.format(before)}\n" in again.err
    assert "as recorded" not in shipbench(*command, "--tasks", insects, "--force", "--dry-run").err
    bare = shipbench(*command, "--tasks", f"folder:{insects.parent / 'bugs'}", "--dry-run")
    assert "1 run: 1 to do" in bare.err
    assert "as recorded" not in bare.err


def test_a_plan_says_what_to_know_of_a_source(shipbench: Shipbench, tmp_path: Path, cache: Path) -> None:
    image_folder(tmp_path / "moths", {"": (10, 10, 10)})
    source = f"folder:{tmp_path / 'moths'}"
    outcome = shipbench("run", "--method", "linear,ship", "--tasks", source, *SMALL, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("moths: the source has no test images, so a fifth of each class is held out") == 1


def test_shots_are_a_dimension_of_the_grid(shipbench: Shipbench, insects: Path, tmp_path: Path) -> None:
    results, source = tmp_path / "results", f"folder:{insects.parent / 'bugs'}"
    command = ("run", "--method", "linear", "--tasks", source, *SMALL, "--seeds", "0,1", "--results", results)
    outcome = shipbench(*command, "--shots", "1,2")
    assert outcome.code == 0, outcome.err
    assert "linear, 1 per class" in outcome.out
    frame = load_results(results)
    assert sorted(zip(frame["shots"], frame["n_train"], frame["seed"], strict=True)) == [
        *((1, 3, 0), (1, 3, 1)),
        *((2, 6, 0), (2, 6, 1)),
    ]
    refused = shipbench(*command, "--shots", "4,16")
    assert refused.code == 2
    assert "fewer than 16 training images of classes ant (8), bee (8), wasp (8)" in refused.err
    assert shipbench(*command, "--shots", "0").code == 2
    assert len(load_results(results)) == 4


def test_tuning_scores_a_fifth_of_the_training_images(shipbench: Shipbench, insects: Path, tmp_path: Path) -> None:
    source = f"folder:{insects.parent / 'bugs'}"
    tune = ("tune", "--method", "linear", "--grid", "lr=0.01,0.1", "--choose-only", "--results", tmp_path / "results")
    held_out = shipbench("list", "tasks", source, "--json")
    assert json.loads(held_out.out)[0]["n_test"] == 6
    outcome = shipbench(*tune, "--tasks", source, *SMALL)
    assert outcome.code == 0, outcome.err
    assert load_results(tmp_path / "results")["n_test"].tolist() == [6, 6]
    assert "accuracy on val, %" in outcome.out
    assert "tuning on train, scored on val" in outcome.err


def test_a_folder_to_verify_is_no_option(shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere, --data replaces the variable, which names the folder here."""
    monkeypatch.setenv("SHIPBENCH_DATA", str(tmp_path / "old"))
    outcome = shipbench("data", "verify", "--data", tmp_path / "new")
    assert outcome.code == 2
    assert f"to verify a folder: shipbench data verify {tmp_path / 'new'}" in " ".join(outcome.err.split())


def test_a_source_is_verified_and_inspected(shipbench: Shipbench, insects: Path, tmp_path: Path) -> None:
    for place in (insects, f"folder:{insects.parent / 'bugs'}"):
        verified = shipbench("data", "verify", place)
        assert verified.code == 0, verified.err
        assert "in order" in verified.out
    sheet = tmp_path / "sheet.png"
    inspected = shipbench("data", "inspect", f"folder:{insects.parent / 'bugs'}", "--grid", sheet)
    assert inspected.code == 0, inspected.err
    assert "train 18, val 6 of train, test 6 held out of train" in inspected.out
    assert "wasp" in inspected.out
    assert sheet.is_file()
    shutil.copy(insects.parent / "bugs" / "ant" / "0.png", insects.parent / "bugs" / "wasp" / "ant.png")
    assert shipbench("data", "verify", insects).code == 1
    listed = shipbench("list", "tasks", insects)
    assert "Garden" in listed.out


def test_arrays_are_verified_inspected_and_validated_on_their_own_split(
    shipbench: Shipbench, tmp_path: Path, cache: Path
) -> None:
    rng, file = np.random.default_rng(0), tmp_path / "bugs.npz"
    arrays = {}
    for split, count in (("train", 10), ("val", 6), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    np.savez_compressed(file, **arrays)
    verified = shipbench("data", "verify", f"npz:{file}")
    assert (verified.code, "in order" in verified.out) == (0, True), verified.err
    assert "recorded as" not in verified.out + verified.err
    inspected = shipbench("data", "inspect", f"npz:{file}", "--grid", tmp_path / "sheet.png")
    assert inspected.code == 0, inspected.err
    assert "train 10, val 6, test 4" in inspected.out
    (row,) = json.loads(shipbench("list", "tasks", f"npz:{file}", "--json").out)
    assert (row["name"], row["n_train"], row["n_test"]) == ("bugs", 16, 4)
    np.savez(file, **arrays | {"test_labels": np.zeros((4, 14), np.uint8)})
    for command in (("data", "verify"), ("data", "inspect"), ("run", "--method", "linear", *SMALL, "--tasks")):
        refused = shipbench(*command, f"npz:{file}")
        assert (refused.code, refused.err.count("error: ")) == (2, 1)
        assert "test_labels has 14 numbers per image, so several labels" in refused.err


def leak(folder: Path) -> None:
    shutil.copy(folder / "train" / "ant" / "0.png", folder / "test" / "ant" / "leak.png")


def two_classes(folder: Path) -> None:
    shutil.copy(folder / "train" / "ant" / "0.png", folder / "train" / "bee" / "ant.png")


def no_training_image(folder: Path) -> None:
    (folder / "test" / "fly").mkdir()
    picture(5, 1).save(folder / "test" / "fly" / "0.png")


def no_classes(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    picture(5, 1).save(folder / "0.png")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (leak, "1 test image of task bugs is also a training image, byte for byte"),
        (two_classes, "one image of task bugs is in two classes"),
        (no_training_image, "fly"),
        (no_classes, "no class folders"),
        (shutil.rmtree, "bugs"),
    ],
)
def test_bad_images_are_refused_in_one_sentence(
    shipbench: Shipbench, tmp_path: Path, cache: Path, spoil: Callable[[Path], None], words: str
) -> None:
    folder = image_folder(tmp_path / "bugs", {"train": (4, 4, 4), "test": (2, 2, 2)})
    spoil(folder)
    outcome = shipbench("run", "--method", "linear", "--tasks", f"folder:{folder}", *SMALL, "--results", tmp_path / "r")
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.err.count("error: ") == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("spoil", "kind"), [(leak, "test and train"), (two_classes, "two classes")])
def test_the_command_that_lists_refused_images_can_be_run(
    shipbench: Shipbench, tmp_path: Path, cache: Path, spoil: Callable[[Path], None], kind: str
) -> None:
    folder = image_folder(tmp_path / "my bugs", {"train": (4, 4, 4), "test": (2, 2, 2)})
    spoil(folder)
    file = tmp_path / "own.toml"
    file.write_text("[[task]]\nname = 'bugs'\nsource = 'folder:my bugs'\n")
    store = image_folder(tmp_path / "store" / "eurosat" / "2750", {"": (5, 5)}, ("Forest", "River"))
    for image in store.rglob("*.png"):
        image.rename(image.with_suffix(".jpg"))
    shutil.copy(store / "Forest" / "0.jpg", store / "River" / "again.jpg")
    for options, found, names in (
        (("--tasks", f"folder:{folder}"), kind, "a"),
        (("--tasks", file), kind, "the"),
        (("--tasks", "torchvision:EuroSAT", "--data", tmp_path / "store"), "two classes", "a"),
    ):
        refused = shipbench("run", "--method", "linear", *options, *SMALL, "--results", tmp_path / "r")
        assert (refused.code, f"or write allow_leaks = true in {names} task file; " in refused.err) == (2, True)
        command = shlex.split(refused.err.partition("; list them with: shipbench ")[2])
        assert command[-2:] == ["--list", "FILE.csv"]
        assert shipbench(*command[:-1], tmp_path / "list.csv").code == 1
        assert f"\n{found}," in (tmp_path / "list.csv").read_text()


def test_allowed_leaks_are_run(shipbench: Shipbench, tmp_path: Path, cache: Path) -> None:
    leak(image_folder(tmp_path / "bugs", {"train": (4, 4, 4), "test": (2, 2, 2)}))
    (tmp_path / "own.toml").write_text("[[task]]\nsource = 'folder:bugs'\nallow_leaks = true\n")
    command = ("run", "--method", "linear", "--tasks", tmp_path / "own.toml", *SMALL, "--results", tmp_path / "r")
    assert shipbench(*command).code == 0
