"""Absurd values, unusable paths and damaged exports are each refused in one sentence."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from shipbench import load_results
from shipbench.spec import RunSpec
from tests.cli.builders import TINY
from tests.conftest import Outcome, Shipbench
from tests.data.builders import encode, pixels_of, vtab_tree

LONG = "x" * 400


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vtab_tree(tmp_path_factory.mktemp("data"), tasks=("dtd",))


def refused(outcome: Outcome, words: str) -> None:
    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert outcome.err.count("error: ") == 1
    assert "unexpected error" not in outcome.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seeds", "0-1000000000"), "asks for 1000000001 seeds"),
        (("--seeds", str(2**64)), "is not a list of seeds"),
        (("--seeds", "1" * 5000), "is not a list of seeds"),
        (("--seeds", "3-1"), "is not a list of seeds"),
        (("--set", "batch_size=" + "9" * 30), "is not a whole number below 2**31"),
        (("--set", "mean=inf,0,0"), "is not 3 numbers"),
        (("--set", "std=inf,1,1"), "is not 3 numbers"),
        (("--set", "lr=inf"), "is not a number that is finite"),
        (("--set", "ship.matching_weight=inf"), "is not a number that is finite"),
        (("--set", "ship.end_layer=0"), "end_layer is 0; it must be 1 or more"),
        (("--set", "image_size=160000"), "more than 4096 pixels"),
        (("--device", "cuda:" + "9" * 20), "unknown device"),
        (("--backbone", ""), "unknown backbone ''"),
        (("--checkpoint", LONG), "cannot be used: File name too long"),
        (("--data", LONG), "cannot be used: File name too long"),
    ],
)
def test_absurd_values_are_refused(
    shipbench: Shipbench, tree: Path, tmp_path: Path, cache: Path, options: tuple[str, ...], words: str
) -> None:
    values: dict[str, Any] = {"--backbone": "test_vit", "--checkpoint": "random", "--data": tree, "--epochs": "1"}
    values |= dict(zip(options[::2], options[1::2], strict=True))
    line = [part for pair in values.items() for part in pair]
    refused(shipbench("run", "--method", "ship", "--tasks", "dtd", "--results", tmp_path / "r", *line), words)
    assert not list((tmp_path / "r").rglob("*.parquet"))


def test_seeds_and_numbers_from_python() -> None:
    from shipbench.errors import InputError

    with pytest.raises(InputError, match="below"):
        RunSpec(method="linear", task="dtd", seed=2**32)
    with pytest.raises(InputError, match="lr="):
        _ = RunSpec(method="linear", task="dtd", overrides={"lr": 10**400}).resolved


@pytest.mark.parametrize(
    "line",
    [
        ("list", "runs", "--results", LONG),
        ("report", "--results", LONG),
        ("export", LONG, "w.safetensors"),
        ("predict", LONG, "image.png"),
        ("data", "verify", LONG),
        ("data", "import", LONG),
        ("run", "--method", "linear", "--tasks", "demo-tiny", "--results", "/dev/null/r", "--dry-run"),
    ],
    ids=lambda line: " ".join(line[:2])[:20],
)
def test_unusable_paths_are_refused(shipbench: Shipbench, cache: Path, line: tuple[str, ...]) -> None:
    refused(shipbench(*line), "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_file_names_that_are_not_utf8(shipbench: Shipbench, tree: Path, tmp_path: Path, cache: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.pth")
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "w.pth")
    (tmp_path / "w.pth").rename(odd)
    line = ("--method", "linear", "--tasks", "dtd", "--data", tree, "--backbone", "test_vit", "--epochs", "1")
    line = (*line, "--set", "image_size=64", "--checkpoint", odd)
    done = shipbench("run", *line, "--results", tmp_path / "r")
    assert done.code == 0, done.err
    assert list(load_results(tmp_path / "r")["checkpoint"]) == ["caf\\udce9.pth"]
    folder = tmp_path / os.fsdecode(b"r\xe9")
    refused(shipbench("run", *line, "--results", folder), "its name is not UTF-8")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--levels", "3,0"), "must start with 0, rise"),
        (("--levels", "1,2"), "must start with 0, rise"),
        (("--levels", "0,0"), "must start with 0, rise"),
        (("--levels", "0,99"), "stay below the backbone's 6 blocks"),
        (("--prompt-lengths", "1" * 5000), "is not a list of whole numbers"),
        (("--image-size", "1600000"), "more than 4096 pixels"),
        (("--batch-size", "9" * 30), "--batch-size"),
    ],
)
def test_impossible_benchmarks_are_refused(shipbench: Shipbench, options: tuple[str, str], words: str) -> None:
    outcome = shipbench("bench", "--backbone", "test_vit", "--method", "ship", "--image-size", "64", *options)
    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert "unexpected error" not in outcome.err


def test_a_set_of_tasks_is_refused_where_one_task_is_needed(shipbench: Shipbench) -> None:
    refused(shipbench("data", "inspect", "all"), "'all' is a set of tasks")


def test_more_threads_than_images(shipbench: Shipbench, tree: Path, cache: Path) -> None:
    assert shipbench("data", "inspect", "dtd", "--data", tree, "--jobs", 999_999).code == 0


@pytest.mark.parametrize("command", ["import", "fetch"])
@pytest.mark.parametrize("taken", ["file", "link"])
def test_a_target_that_cannot_be_a_folder(
    shipbench: Shipbench, tree: Path, tmp_path: Path, command: str, taken: str
) -> None:
    target = tmp_path / "target"
    target.write_text("mine") if taken == "file" else target.symlink_to("target")
    source = (tree,) if command == "import" else ("--endpoint", "http://127.0.0.1:9")
    refused(shipbench("data", command, *source, "--to", target), f"{target} is not a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_target_inside_its_source(shipbench: Shipbench, tmp_path: Path) -> None:
    source = vtab_tree(tmp_path / "copy", tasks=("dtd",))
    refused(shipbench("data", "import", source, "--to", source / "dtd" / "copy"), "which would be copied")
    assert not [*source.rglob("copy*"), *source.rglob(".*")]


def test_a_deeply_nested_tuning_is_refused(shipbench: Shipbench, tmp_path: Path) -> None:
    for folder in ("runs", "tuning"):
        (tmp_path / "r" / folder).mkdir(parents=True)
    (tmp_path / "r" / "tuning" / "x.json").write_text("[" * 100_000)
    refused(shipbench("report", "--results", tmp_path / "r", "--output", tmp_path / "o"), "x.json cannot be read")


def test_a_closed_standard_output(shipbench: Shipbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert shipbench("list", "methods").code == 0


@pytest.fixture
def trained(shipbench: Shipbench, tree: Path, tmp_path: Path, cache: Path) -> Path:
    """Export a run and return the file; an image lies beside it."""
    line = ("--method", "vpt-shallow", "--tasks", "dtd", "--data", tree, "--results", tmp_path / "r")
    assert shipbench("run", *TINY, *line).code == 0
    run_id = next((tmp_path / "r" / "runs").iterdir()).stem
    assert shipbench("export", run_id, tmp_path / "w.safetensors", "--results", tmp_path / "r").code == 0
    (tmp_path / "image.png").write_bytes(encode(pixels_of("dtd", "test", 0, 0, (12, 10))))
    return tmp_path / "w.safetensors"


def test_damaged_metadata(shipbench: Shipbench, trained: Path) -> None:
    tensors = load_file(trained)
    with safe_open(trained, "pt") as stream:
        whole = dict(stream.metadata())
    wanted = json.loads(whole["preprocessing"])
    changes: list[dict[str, str | None]] = [{key: None} for key in whole]
    changes += [{"num_classes": text} for text in ("many", "-3", "1" + "0" * 12)]
    changes += [{"preprocessing": text} for text in ("{", "[1]", '{"image_size": 64}')]
    for odd in ({"colour": 1}, {"mean": ["a", "b", "c"]}, {"image_size": "big"}, {"image_size": 1600000}):
        changes.append({"preprocessing": json.dumps(wanted | odd)})
    changes += [{"settings": text} for text in ("{", "[1]", '{"x": 1}')]
    file = trained.with_name("changed.safetensors")
    for change in changes:
        metadata = {key: value for key, value in (whole | change).items() if value is not None}
        save_file(tensors, file, metadata=metadata)
        outcome = shipbench("predict", file, trained.with_name("image.png"), "--checkpoint", "random")
        assert outcome.code == 2, (change, outcome.err)
        assert outcome.err.startswith("error: "), (change, outcome.err)
    save_file({key: value.repeat(2) for key, value in tensors.items() if value.dim() == 1}, file, metadata=whole)
    refused(shipbench("predict", file, trained.with_name("image.png"), "--checkpoint", "random"), "does not hold")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_an_image_whose_name_is_not_utf8(shipbench: Shipbench, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = trained.with_name(os.fsdecode(b"caf\xe9.png"))
    trained.with_name("image.png").rename(image)
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    assert shipbench("predict", trained, image, "--checkpoint", "random").code == 0
    out.flush()
    assert b"caf\\udce9.png" in out.buffer.getvalue()  # type: ignore[attr-defined]
