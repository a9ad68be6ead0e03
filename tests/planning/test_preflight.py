"""Everything that can be refused without the network is refused first, in one error."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Shipbench
from tests.data.builders import vtab_tree

COMMANDS = (("run", "--method", "ship"), ("ablate",), ("tune", "--method", "ship", "--grid", "prompt_length=5"))


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if anything opens a connection or resolves a host."""

    def connect(*_: Any, **__: Any) -> None:
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_all_problems_are_named_at_once(
    shipbench: Shipbench, cache: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "taken").write_text("")
    wrong = ("--data", tmp_path / "nope", "--checkpoint", tmp_path / "nope.pth", "--device", "cuda:77")
    outcome = shipbench(*command, "--tasks", "dtd,svhn", *wrong, "--set", "lr=fast", "--results", tmp_path / "taken")
    assert outcome.code == 2
    assert outcome.err.count("error: ") == 1
    lines = outcome.err.splitlines()
    assert lines[0] == "error: 5 problems:"
    assert len(lines) == 6
    for words in (
        "lr='fast' is not a number",
        f"{tmp_path / 'nope'} is not a folder",
        f"checkpoint {tmp_path / 'nope.pth'} does not exist",
        "device 'cuda:77' is not available",
        f"results folder {tmp_path / 'taken'} cannot be written to",
    ):
        assert words in outcome.err


def test_wrong_names_and_options_are_named_with_all_else(shipbench: Shipbench, cache: Path, tmp_path: Path) -> None:
    names = ("--method", "shp,linear,vpt", "--tasks", f"svnh,cifar10,folder:{tmp_path / 'nope'}")
    wrong = ("--engine", "slrm", "--track", "wandbb", "--seeds", "x", "--set", "lr", "--shots", "0")
    outcome = shipbench("run", *names, *wrong, "--checkpoint", tmp_path / "nope.pth", "--device", "cuda:77")
    assert outcome.code == 2
    lines = outcome.err.splitlines()
    assert lines[0] == "error: 11 problems:"
    assert len(lines) == 12
    for words in (
        "unknown method 'shp' (did you mean 'ship'?)",
        "unknown method 'vpt'",
        "unknown task 'svnh' (did you mean 'svhn'?)",
        "unknown task 'cifar10'",
        "unknown engine 'slrm'",
        "unknown tracker 'wandbb'",
        "--seeds 'x' is not",
        "--set 'lr' is not KEY=VALUE",
        "--shots '0' is not",
        "nope.pth does not exist",
        "device 'cuda:77' is not available",
    ):
        assert words in outcome.err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("options", "problems"),
    [
        (("--scheduler", "tcp://127.0.0.1:1"), ["--scheduler ADDRESS and --engine dask belong together"]),
        (("--engine", "dask"), ["--engine dask and --scheduler ADDRESS belong together"]),
        (("--engine", "dask", "--scheduler", "tcp://127.0.0.1:1", "--stack", "8"), ["--stack N and --engine dask"]),
        (("--engine", "slurm", "--stack", "8"), ["--stack N and --engine slurm", "needs sbatch"]),
        (("--engine", "slurm", "--cluster", "partion=gpu"), ["unknown setting 'partion'", "needs sbatch"]),
        (
            ("--cluster", "partition=gpu", "--scheduler", "tcp://127.0.0.1:1"),
            ["--engine local has no --cluster options", "--scheduler ADDRESS and --engine dask belong together"],
        ),
        (
            ("--engine", "slrm", "--stack", "many", "--cluster", "gpu"),
            ["unknown engine 'slrm'", "--stack 'many' is neither", "--cluster 'gpu' is not KEY=VALUE"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_do_not_fit_the_engine_are_named_with_all_else(
    shipbench: Shipbench,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    options: tuple[str, ...],
    problems: list[str],
) -> None:
    for engine, library in (("slurm", "submitit"), ("dask", "distributed")):
        if engine in options:
            pytest.importorskip(library)
    monkeypatch.setenv("PATH", str(tmp_path))
    line = ("--tasks", "dtd", "--data", tmp_path / "nope", "--device", "cpu", "--results", tmp_path / "r")
    outcome = shipbench(*command, *line, *options)
    assert outcome.code == 2
    assert outcome.err.splitlines()[0] == f"error: {len(problems) + 1} problems:", outcome.err
    assert all(words in outcome.err for words in (*problems, f"{tmp_path / 'nope'} is not a folder"))


def test_a_study_names_problems_of_its_reports_and_its_engine_with_those_of_its_parts(
    shipbench: Shipbench, cache: Path, tmp_path: Path
) -> None:
    pytest.importorskip("distributed")
    file = tmp_path / "paper.toml"
    file.write_text(
        "[[run]]\nname = 'main'\nmethods = 'linear'\ntasks = 'dtd'\n"
        "[[report]]\noutput = 'a'\nselect = 'finall'\nformat = 'docx'\nbaseline = 'lora'\n"
        "[[report]]\noutput = 'b'\nstyle = 'cvprr'\n"
    )
    line = ("study", file, "--data", tmp_path / "nope", "--device", "cpu", "--results", tmp_path / "r")
    outcome = shipbench(*line, "--engine", "dask", "--stack", "8")
    assert outcome.code == 2
    assert outcome.err.splitlines()[0] == "error: 7 problems:", outcome.err
    for words in (
        "'finall'",
        "'docx'",
        "baseline: no part trains 'lora'",
        "'cvprr'",
        "belong together",
        "cannot be combined",
        f"{tmp_path / 'nope'} is not a folder",
    ):
        assert words in outcome.err
    assert not (tmp_path / "r").exists()


def test_a_problem_is_named_once(shipbench: Shipbench, cache: Path, tmp_path: Path) -> None:
    line = ("--tasks", "digits", "--device", "cpu", "--results", tmp_path / "r")
    for command in (
        ("run", "--method", "shp", *line),
        ("ablate", "--method", "shp", *line),
        ("tune", "--method", "shp", "--grid", "lr=0.1", *line),
        ("run", "--method", "ship", *line, "--seeds", "x"),
    ):
        outcome = shipbench(*command)
        assert outcome.code == 2
        assert outcome.err.startswith("error: ")
        assert len(outcome.err.splitlines()) == 1


def test_a_single_problem_is_one_sentence(shipbench: Shipbench, cache: Path, tmp_path: Path) -> None:
    outcome = shipbench("run", "--method", "ship", "--tasks", "dtd", "--data", tmp_path / "nope", "--device", "cpu")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {tmp_path / 'nope'} is not a folder")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("text", ["ten", "nan"])
def test_an_interval_of_checkpoints_that_is_no_number_of_seconds_fails_no_run(
    shipbench: Shipbench, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", text)
    grid = ("run", "--method", "ship", "--tasks", "dtd", "--data", vtab_tree(tmp_path / "data", ("dtd",)))
    outcome = shipbench(*grid, "--device", "cpu", "--checkpoint", "random", "--results", tmp_path / "results")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: SHIPBENCH_CHECKPOINT_SECONDS={text} is not a number of seconds")
    assert len(outcome.err.splitlines()) == 1


def test_a_missing_split_file_is_named_before_weights_are_fetched(
    shipbench: Shipbench, cache: Path, tmp_path: Path
) -> None:
    tree = vtab_tree(tmp_path / "data", tasks=("dtd", "svhn"))
    for task in ("dtd", "svhn"):
        (tree / task / "test.txt").unlink()
    line = ("--tasks", "dtd,svhn", "--data", tree, "--device", "cpu", "--results", tmp_path / "r")
    outcome = shipbench("run", "--method", "linear", *line)
    assert outcome.code == 2
    assert all(f"{tree / task / 'test.txt'} is missing" in outcome.err for task in ("dtd", "svhn"))


def test_a_missing_image_is_named_before_weights_are_fetched(shipbench: Shipbench, cache: Path, tmp_path: Path) -> None:
    tree = vtab_tree(tmp_path / "data", tasks=("dtd",))
    next((tree / "dtd" / "images" / "test").iterdir()).unlink()
    line = ("--tasks", "dtd", "--data", tree, "--device", "cpu", "--results", tmp_path / "r")
    outcome = shipbench("run", "--method", "linear", *line)
    assert outcome.code == 2
    assert "is missing" in outcome.err
