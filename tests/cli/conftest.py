"""Runs that the tests of exports share, and a hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from shipbench import RunSpec, run
from shipbench.tasks import Task, get_task
from tests.cli.builders import TINY
from tests.data.builders import vtab_tree
from tests.hub import Hub, local_hub
from tests.tasks.pictures import image_folder

# The normalisation of test_vit has equal means and deviations.
COMMON: dict[str, Any] = {"image_size": 64, "epochs": 1, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}


@dataclass(frozen=True)
class Trained:
    """A folder of photographs by class, the results folder, and the run id of each method."""

    photographs: Path
    results: Path
    runs: dict[str, str]

    @property
    def photograph(self) -> Path:
        """One image, 20 x 14 pixels."""
        return self.photographs / "bee" / "0.png"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train tiny models on three classes; tests must not change the results.

    The methods adapt a ViT; "convolutional" is a linear probe on a ResNet, whose images are cropped.
    """
    root = tmp_path_factory.mktemp("trained")
    image_folder(root / "insects", {"": (10, 10, 10)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIPBENCH_CACHE", str(root / "cache"))
        task = get_task(f"folder:{root / 'insects'}")
        runs = {method: _train(method, task, root) for method in ("ship", "vpt-deep", "lora", "peft-lora", "full")}
        runs["convolutional"] = _train("linear", replace(task, resize="crop"), root, "resnet10t")
    return Trained(root / "insects", root / "results", runs)


def _train(method: str, task: Task, root: Path, backbone: str = "test_vit") -> str:
    spec = RunSpec(
        method,
        task,
        overrides=COMMON | ({"prototypes": 3} if method == "ship" else {}),
        backbone=backbone,
        checkpoint="random",
        precision="fp32",
        device="cpu",
    )
    record = run(spec, results=root / "results")
    assert record.done, record.error
    return record.run_id


@pytest.fixture
def line(tmp_path: Path, cache: Path) -> tuple[object, ...]:
    """Options of runs on dtd, whose records go to ``r``."""
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    return (*TINY, "--tasks", "dtd", "--data", data, "--results", tmp_path / "r")


@pytest.fixture
def quiet_tracer() -> Iterator[None]:
    """Keep torch from writing what it traces to the handler with which pytest captures logs."""
    logger = logging.getLogger("torch.__trace")
    propagates, logger.propagate = logger.propagate, False
    yield
    logger.propagate = propagates


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub whose token is set, with an empty cache of downloads."""
    with local_hub(tmp_path / "hub-cache") as hub:
        yield hub
