"""Configuration files: wrong ones are refused in one sentence with exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome
from tests.data.builders import vtab_tree

START = 'method = "linear"\ntasks = "dtd"\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (START + "epocs = 3\n", "did you mean 'epochs'"),
        (START + "config = 'other.toml'\n", "unknown key 'config'"),
        (START + "epochs = 'many'\n", "epochs"),
        (START + "epochs = [1, 2]\n", "epochs"),
        (START + "epochs = 2.5\n", "epochs"),
        (START + "jobs = 0\n", "jobs"),
        (START + "jobs = 1.5\n", "jobs"),
        (START + "force = 'perhaps'\n", "force"),
        (START + "backbone = 'test_vit'\ncheckpoint = 'random'\nimage_size = 64\n", "unknown key 'image_size'"),
        (START + "backbone = 'test_vit'\ncheckpoint = 'random'\ndata = 5\n", "5"),
        (START + "set = 5\n", "is not KEY=VALUE"),
        (START + "set = ['lr']\n", "is not KEY=VALUE"),
        (START + "[set]\nlearning_rate = 0.1\n", "unknown setting 'learning_rate'"),
        (START + "[set]\nlr = nan\n", "is not a number"),
        (START + "[set]\nlr = true\n", "is not a number"),
        (START + "[set.vpt-deep]\nlr = 0.1\n", "not among"),
        (START + "[tasks.more]\nname = 'dtd'\n", "is not TOML"),
        ("method = 'linear'\n[tasks]\nname = 'dtd'\n", "key 'tasks' in"),
        (START + "tasks = 'dtd'\n", "is not TOML"),
        (START + "seeds = 'all'\n", "--seeds 'all'"),
        (START + "seeds = -1\n", "--seeds '-1'"),
        ("\x00", "is not TOML"),
    ],
)
def test_wrong_configuration(
    shipbench: Callable[..., Outcome], tmp_path: Path, cache: Path, content: str, words: str
) -> None:
    (tmp_path / "grid.toml").write_text(content)
    outcome = shipbench("run", "--config", tmp_path / "grid.toml", "--results", tmp_path / "r")
    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert not list((tmp_path / "r").glob("runs/*.parquet"))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", "tasks = 'dtd'".encode("utf-16"), "tasks = 'dtd' # é".encode("latin-1")]
)
def test_a_file_that_is_not_utf8_is_refused(shipbench: Callable[..., Outcome], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "grid.toml").write_bytes(content)
    outcome = shipbench("run", "--config", tmp_path / "grid.toml")
    assert outcome.code == 2
    assert "grid.toml cannot be read: it is not UTF-8; save it as UTF-8" in outcome.err


def test_a_byte_order_mark_and_windows_line_endings_are_accepted(
    shipbench: Callable[..., Outcome], tmp_path: Path, cache: Path
) -> None:
    content = "\ufeffmethod = 'linear'\r\ntasks = 'digits'\r\n[set]\r\nlr = 0.5\r\n"
    (tmp_path / "grid.toml").write_bytes(content.encode("utf-8"))
    outcome = shipbench("run", "--config", tmp_path / "grid.toml", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "lr=0.5" in outcome.out


def test_settings_may_be_a_list(shipbench: Callable[..., Outcome], tmp_path: Path, cache: Path) -> None:
    (tmp_path / "grid.toml").write_text("method = 'linear'\ntasks = 'digits'\nset = ['lr=0.5', 'epochs=3']\n")
    outcome = shipbench("run", "--config", tmp_path / "grid.toml", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "epochs=3, lr=0.5" in outcome.out


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ((), "epochs=3, lr=0.5, weight_decay=0.1"),
        (("--set", "lr=0.25"), "epochs=3, lr=0.25, weight_decay=0.1"),
        (("--set", "weight_decay=0.2"), "epochs=3, lr=0.5, weight_decay=0.2"),
        (("--set", "linear.epochs=4", "--set", "drop_path=0.0"), "drop_path=0.0, epochs=4, lr=0.5, weight_decay=0.1"),
        (("--epochs", "4"), "epochs=4, lr=0.5, weight_decay=0.1"),
        (("--set", "lr=0.25", "--epochs", "4"), "epochs=4, lr=0.25, weight_decay=0.1"),
        (("--epochs", "4", "--set", "lr=0.25"), "epochs=4, lr=0.25, weight_decay=0.1"),
        (("--set", "epochs=4"), "epochs=4, lr=0.5, weight_decay=0.1"),
    ],
)
def test_a_setting_of_the_command_line_replaces_that_of_the_file_alone(
    shipbench: Callable[..., Outcome], tmp_path: Path, cache: Path, given: tuple[str, ...], settings: str
) -> None:
    text = "method = 'linear'\ntasks = 'digits'\n[set]\nepochs = 3\nlr = 0.5\nlinear.weight_decay = 0.1\n"
    (tmp_path / "grid.toml").write_text(text)
    outcome = shipbench("run", "--config", tmp_path / "grid.toml", *given, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert settings in outcome.out


@pytest.mark.parametrize(
    "given",
    [
        ("--epochs", "4"),
        ("--set", "lr=0.5", "--epochs", "4"),
        ("--epochs", "4", "--set", "lr=0.5"),
        ("--set", "epochs=4"),
    ],
)
def test_epochs_of_the_command_line_are_those_of_every_method(
    shipbench: Callable[..., Outcome], tmp_path: Path, cache: Path, given: tuple[str, ...]
) -> None:
    (tmp_path / "grid.toml").write_text("method = 'linear'\ntasks = 'digits'\n[set]\nlinear.epochs = 3\n")
    outcome = shipbench("run", "--config", tmp_path / "grid.toml", *given, "--dry-run")
    assert "epochs=4" in outcome.out, outcome.err


def test_epochs_are_given_once(shipbench: Callable[..., Outcome], tmp_path: Path, cache: Path) -> None:
    line = ("run", "--config", tmp_path / "grid.toml", "--dry-run")
    (tmp_path / "grid.toml").write_text("method = 'linear'\ntasks = 'digits'\nepochs = 3\n")
    assert "epochs=4" in shipbench(*line, "--set", "epochs=4").out
    assert "epochs is given twice" in shipbench(*line, "--set", "epochs=4", "--epochs", 5).err
    (tmp_path / "grid.toml").write_text("method = 'linear'\ntasks = 'digits'\nepochs = 3\n[set]\nepochs = 4\n")
    outcome = shipbench(*line)
    assert (outcome.code, "grid.toml gives epochs twice: as a key and in [set]" in outcome.err) == (2, True)


def test_a_named_file_takes_precedence_over_the_environment(
    shipbench: Callable[..., Outcome], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    monkeypatch.setenv("SHIPBENCH_DATA", str(tmp_path / "environment"))
    start = START + "backbone = 'test_vit'\ncheckpoint = 'random'\n"
    (tmp_path / "grid.toml").write_text(f"{start}data = '{data}'\n[set]\nimage_size = 64\n")
    line = ("run", "--config", tmp_path / "grid.toml", "--results", tmp_path / "r", "--dry-run")
    outcome = shipbench(*line)
    assert outcome.code == 0, outcome.err
    assert str(tmp_path / "line") in shipbench(*line, "--data", tmp_path / "line").err
    (tmp_path / "grid.toml").write_text(start)
    assert str(tmp_path / "environment") in shipbench(*line).err
