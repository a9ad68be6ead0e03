"""Wrong input is refused in one sentence on standard error, with exit code 2 and without a record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.builders import TINY
from tests.conftest import Outcome, Shipbench
from tests.data.builders import vtab_tree


@pytest.fixture
def tree(tmp_path: Path, cache: Path) -> Path:
    return vtab_tree(tmp_path / "data", tasks=("cifar100", "dtd"))


def refused(outcome: Outcome, results: Path, *words: str) -> None:
    lines = [line for line in outcome.err.splitlines() if line.startswith(("error:", "Usage", "│", "╭"))]
    assert outcome.code == 2, outcome.err
    assert lines, outcome.err
    for word in words:
        assert word in outcome.err
    assert "Traceback" not in outcome.err
    assert not results.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "shp", "--tasks", "dtd"), ("unknown method 'shp'", "did you mean 'ship'")),
        (("--method", "ship", "--tasks", "cifar10"), ("unknown task", "did you mean 'cifar100'")),
        (("--method", "ship", "--tasks", ""), ("--tasks is empty",)),
        (("--method", "", "--tasks", "dtd"), ("--method is empty",)),
        (("--method", "ship", "--tasks", "dtd", "--seeds", "a"), ("--seeds 'a'",)),
        (("--method", "ship", "--tasks", "dtd", "--seeds", "4-1"), ("--seeds '4-1'",)),
        (("--method", "ship", "--tasks", "dtd", "--set", "promt_length=5"), ("did you mean 'prompt_length'",)),
        (("--method", "ship", "--tasks", "dtd", "--set", "prompt_length"), ("is not KEY=VALUE",)),
        (("--method", "ship", "--tasks", "dtd", "--set", "lr=fast"), ("lr='fast' is not a number",)),
        (("--method", "ship", "--tasks", "dtd", "--set", "lr=nan"), ("lr='nan' is not a number",)),
        (("--method", "ship", "--tasks", "dtd", "--set", "batch_size=0"), ("batch_size is 0",)),
        (("--method", "ship", "--tasks", "dtd", "--set", "prompt_length=2.5"), ("is not a whole number",)),
        (("--method", "ship", "--tasks", "dtd", "--set", "attention=loose"), ("one of decoupled, coupled",)),
        (("--method", "ship", "--tasks", "dtd", "--set", "vpt-deep.prompt_length=3"), ("not among",)),
        (("--method", "ship", "--tasks", "dtd", "--device", "cuda:7"), ("is not available",)),
        (("--method", "ship", "--tasks", "dtd", "--device", "abacus"), ("unknown device",)),
        (("--method", "ship", "--tasks", "dtd", "--precision", "fp8"), ("unknown precision",)),
        (("--method", "ship", "--tasks", "dtd", "--recipe", "publishd"), ("did you mean 'published'",)),
        (("--method", "linear", "--tasks", "dtd", "--recipe", "published"), ("no published",)),
        (("--method", "ship", "--tasks", "digits", "--recipe", "published"), ("no published settings",)),
        (("--method", "ship", "--tasks", "dtd", "--jobs", "0"), ("--jobs '0' is neither",)),
        (("--method", "ship", "--tasks", "dtd", "--jobs", "many"), ("--jobs 'many' is neither",)),
        (("--method", "ship", "--tasks", "dtd", "--colour", "red"), ("--colour",)),
    ],
)
def test_wrong_options(
    shipbench: Shipbench, tree: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    outcome = shipbench("run", *TINY, "--data", tree, "--results", tmp_path / "r", *arguments)
    refused(outcome, tmp_path / "r", *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--backbone", "vit_bas_patch16_224"), ("unknown backbone", "did you mean")),
        (("--backbone", "resnet18"), ("its class is ResNet, not VisionTransformer or Eva of timm",)),
        (("--backbone", "vit_base_patch16_gap_224"), ("read the class token, which it does not have",)),
        (("--set", "image_size=65"), ("not a multiple of", "try 64")),
        (("--checkpoint", "nothing.pth"), ("does not exist",)),
    ],
)
def test_wrong_backbone(
    shipbench: Shipbench, tree: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    values = dict(zip(TINY[::2], TINY[1::2], strict=True)) | dict(zip(options[::2], options[1::2], strict=True))
    line = [part for pair in values.items() for part in pair]
    common = ("--method", "ship", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r")
    refused(shipbench("run", *common, *line), tmp_path / "r", *words)


def _missing_folder(tree: Path) -> None:
    tree.rename(tree.parent / "elsewhere")


def _missing_task(tree: Path) -> None:
    (tree / "dtd").rename(tree / "dtd-old")


def _missing_split(tree: Path) -> None:
    (tree / "dtd" / "test.txt").unlink()


def _truncated_image(tree: Path) -> None:
    image = next((tree / "dtd" / "images" / "test").iterdir())
    image.write_bytes(image.read_bytes()[:40])


def _label_out_of_range(tree: Path) -> None:
    split = tree / "dtd" / "test.txt"
    lines = split.read_text().splitlines()
    split.write_text("\n".join([lines[0].rsplit(" ", 1)[0] + " 47", *lines[1:]]) + "\n")


def _empty_split(tree: Path) -> None:
    (tree / "dtd" / "test.txt").write_text("")


def _missing_image(tree: Path) -> None:
    next((tree / "dtd" / "images" / "test").iterdir()).unlink()


@pytest.mark.parametrize(
    "damage",
    [
        _missing_folder,
        _missing_task,
        _missing_split,
        _truncated_image,
        _label_out_of_range,
        _empty_split,
        _missing_image,
    ],
)
def test_damaged_data(shipbench: Shipbench, tree: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(tree)
    common = ("--method", "linear", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r")
    refused(shipbench("run", *TINY, *common), tmp_path / "r", "dtd" if tree.exists() else "data")


def test_vtab_without_a_folder(shipbench: Shipbench, tmp_path: Path, cache: Path) -> None:
    outcome = shipbench("run", *TINY, "--method", "linear", "--tasks", "dtd", "--results", tmp_path / "r")
    refused(outcome, tmp_path / "r", "--data")


def test_checkpoint_of_another_model(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    line = ("--method", "linear", "--tasks", "dtd", "--data", tree, "--backbone", "test_vit")
    outcome = shipbench("run", *line, "--checkpoint", tmp_path / "other.pth", "--results", tmp_path / "r")
    refused(outcome, tmp_path / "r", "other.pth", "missing", "unexpected fc.weight")


class Planted:
    """A pickled object other than a tensor, which could run code when it is loaded."""


def test_pickled_objects_are_not_loaded(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    torch.save({"model": Planted()}, tmp_path / "planted.pth")
    line = ("--method", "linear", "--tasks", "dtd", "--data", tree, "--backbone", "test_vit")
    outcome = shipbench("run", *line, "--checkpoint", tmp_path / "planted.pth", "--results", tmp_path / "r")
    refused(outcome, tmp_path / "r", "planted.pth", "was not loaded")


def test_npz_of_another_model(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    line = ("--method", "linear", "--tasks", "dtd", "--data", tree, "--backbone", "test_vit")
    outcome = shipbench("run", *line, "--checkpoint", tmp_path / "other.npz", "--results", tmp_path / "r")
    refused(outcome, tmp_path / "r", "does not fit")


def test_a_results_folder_that_is_a_file(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    line = ("--method", "linear", "--tasks", "dtd", "--data", tree)
    outcome = shipbench("run", *TINY, *line, "--results", tmp_path / "taken")
    refused(outcome, tmp_path / "r", "cannot be written to")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("method = 'linear'\ntaks = 'dtd'\n", ("unknown key 'taks'", "did you mean 'tasks'")),
        ("method = \n", ("is not TOML",)),
    ],
)
def test_wrong_config_file(shipbench: Shipbench, tmp_path: Path, content: str, words: tuple[str, ...]) -> None:
    (tmp_path / "grid.toml").write_text(content)
    outcome = shipbench("run", "--config", tmp_path / "grid.toml", "--results", tmp_path / "r")
    refused(outcome, tmp_path / "r", *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("list published --json --csv", "--json and --csv cannot be combined"),
        ("list published --method ,", "--method is empty; name methods"),
        ("list published --method -", "no published row of '-'"),
        ("list published --task ,", "--task is empty; name tasks"),
        ("list tasks ,", "FILE.toml|SOURCE is empty; name a suite"),
        ("bench --all --end-to-end", "--end-to-end times runs as they are carried out; use it without --all"),
        ("bench --end-to-end --merged", "use it without --all, --compile and --merged"),
        ("bench --operations --merged", "--operations counts instead of timing"),
        ("bench --all --json b.json", "leave out --json"),
        ("bench --all --compile", "neither compiled nor merged; use it without --compile and --merged"),
        ("bench --all --merged", "neither compiled nor merged; use it without --compile and --merged"),
        ("bench --all --prompt-lengths 10,50", "name one length in --prompt-lengths"),
        ("bench --parts steps", "--parts and --output belong to --all"),
        ("bench --output here", "--parts and --output belong to --all"),
        ("bench --all --parts , --output here", "--parts is empty; name one or more of steps, "),
        ("bench --end-to-end --prompt-lengths 10", "use --set prompt_length=N"),
        ("bench --end-to-end --drop-path 0", "and --set drop_path=RATE in place of"),
        ("bench --end-to-end --repeats 9", "--end-to-end times each run once, with the levels that SHIP finds"),
        ("bench --end-to-end --levels 0,2", "leave out --repeats and --levels"),
        ("bench --all --epochs 5", "--epochs belongs to --end-to-end"),
        ("bench --train-images 64", "--train-images and --test-images to --end-to-end or --all"),
        ("bench --operations --test-images 64", "--train-images and --test-images to --end-to-end or --all"),
        ("study x.toml --report --dry-run", "--report writes the reports, which --dry-run does not"),
        ("study x.toml --report --locked", "--report plans no grid that a lock could be compared with"),
        ("study x.toml --report --relock", "leave out --lock, --locked and --relock"),
        ("study x.toml --lock missing.lock", "lock file missing.lock does not exist"),
    ],
)
def test_options_that_do_nothing_together(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(shipbench(*line.split()), tmp_path / "results", words)
    assert not list(tmp_path.iterdir())


def test_listing_a_missing_results_folder(shipbench: Shipbench, tmp_path: Path) -> None:
    refused(shipbench("list", "runs", "--results", tmp_path / "r"), tmp_path / "r", "no results")


def test_a_cache_folder_that_cannot_be_created(
    shipbench: Shipbench, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("SHIPBENCH_CACHE", str(tmp_path / "taken" / "cache"))
    line = ("--method", "linear", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r")
    refused(shipbench("run", *TINY, *line), tmp_path / "r", "cache folder", "SHIPBENCH_CACHE")


def test_all_missing_tasks_are_named_at_once_and_nothing_is_hashed(
    shipbench: Shipbench, tree: Path, tmp_path: Path, cache: Path
) -> None:
    vtab_tree(tree, tasks=("oxford_iiit_pet",), folders={"oxford_iiit_pet": "oxford_pets"})
    outcome = shipbench("run", "--method", "linear", "--tasks", "natural", "--data", tree, "--results", tmp_path / "r")
    missing = ("caltech101", "oxford_flowers102", "oxford_iiit_pet or oxford_pet", "svhn", "sun397")
    refused(outcome, tmp_path / "r", "5 problems", *(f"{tree} has no folder called {name}" for name in missing))
    assert f"if {tree / 'oxford_pets'} is the task oxford_iiit_pet, rename it to oxford_iiit_pet" in outcome.err
    assert not (cache / "fingerprints").exists()


def test_an_image_with_two_labels_is_refused(shipbench: Shipbench, tree: Path, tmp_path: Path) -> None:
    file = tree / "dtd/test.txt"
    file.write_text(file.read_text().replace("000004.png 4", "000001.png 4"))
    outcome = shipbench(
        "run", *TINY, "--method", "linear", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r"
    )
    words = "1 image has more than one label in the split files of"
    refused(outcome, tmp_path / "r", words, "such as images/test/000001.png with the labels 1, 4 in test.txt (2 times)")
