"""The options of a grid of runs reach its specs and its engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shipbench import RunSpec
from shipbench.cli.options import GridOptions
from shipbench.engine.executors import registry
from shipbench.engine.executors.registry import EngineOptions
from shipbench.planning.stacks import parse_stacking


def test_every_option_of_a_run_reaches_its_spec() -> None:
    values: dict[str, Any] = {
        "recipe": "published",
        "backbone": "test_vit",
        "checkpoint": "x.pth",
        "precision": "bf16",
        "data": Path("images"),
        "device": "cuda:1",
        "keep_weights": "full",
    }
    template, expected = GridOptions(tasks="dtd", **values).template(), RunSpec("ship", "demo-tiny", **values)
    # Specs that differ in where and how they run are equal.
    assert vars(template) == vars(expected)


def test_every_option_of_an_engine_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "get_executor", lambda name, options: (name, options))
    cluster = ["partition=gpu", "time=240"]
    options = GridOptions(tasks="dtd", engine="slurm", jobs=3, stack="4", scheduler="tcp://h:1", cluster=cluster)
    expected = EngineOptions(3, parse_stacking("4"), "tcp://h:1", {"partition": "gpu", "time": "240"})
    assert options.executor() == ("slurm", expected)
