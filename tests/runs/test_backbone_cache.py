"""Fixed costs of a run that later runs of a process do not pay again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from shipbench import RunSpec, run
from shipbench.backbones import load_backbone, origin_of, preprocessing_of
from shipbench.methods.ship import attributes
from shipbench.runs import backbone_cache
from shipbench.runs.backbone_cache import copy_of_backbone
from tests.data.builders import vtab_tree
from tests.faults.grids import TIMES

TINY: dict[str, Any] = {"backbone": "test_vit", "checkpoint": "random", "task": "dtd", "device": "cpu"}
SETTINGS = {"image_size": 64, "epochs": 1, "prototypes": 3}


class Loads:
    """Counts the backbones that are backbone_cache."""

    count = 0

    def __call__(self, *names: Any, **options: Any) -> Any:
        self.count += 1
        return load_backbone(*names, **options)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loads]:
    loads = Loads()
    backbone_cache._loaded.cache_clear()
    monkeypatch.setattr(backbone_cache, "load_backbone", loads)
    yield loads
    backbone_cache._loaded.cache_clear()


def test_a_copy_is_what_would_be_loaded_and_belongs_to_its_run(loads: Loads) -> None:
    expected = load_backbone("test_vit", checkpoint="random", image_size=64, drop_path=0.3)
    first = copy_of_backbone("test_vit", "random", 64, 0.3)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    second = copy_of_backbone("test_vit", "random", 64, 0.3)
    assert loads.count == 1
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in second.state_dict().items())
    assert [block.drop_path1.drop_prob for block in second.blocks[1:]] == [
        block.drop_path1.drop_prob for block in expected.blocks[1:]
    ]
    assert (origin_of(second), preprocessing_of(second)) == (origin_of(expected), preprocessing_of(expected))


def test_settings_and_changed_files_are_loaded_again_and_few_are_kept(loads: Loads, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    state = load_backbone("test_vit", checkpoint="random").state_dict()
    for step in range(2):
        save_file({name: value + step for name, value in state.items()}, file)
        os.utime(file, ns=(step, step))
        bias = copy_of_backbone("test_vit", str(file), None, 0.0).patch_embed.proj.bias
        assert torch.equal(bias, state["patch_embed.proj.bias"] + step)
    for options in ((None, 0.1), (64, 0.1), (64, 0.2)):
        copy_of_backbone("test_vit", "random", *options)
    assert loads.count == 5
    assert backbone_cache._loaded.cache_info().currsize == 2


def test_the_second_run_loads_no_backbone_and_clusters_nothing(
    loads: Loads, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    clusters = attributes.attribute_prototypes
    calls: list[int] = []

    def count(features: Any, prototypes: int) -> Any:
        calls.append(prototypes)
        return clusters(features, prototypes)

    monkeypatch.setattr(attributes, "attribute_prototypes", count)

    def rows(results: str, **settings: Any) -> pd.Series[Any]:
        spec = RunSpec(method="ship", data=data, overrides={**SETTINGS, **settings}, **TINY)
        return pd.Series(run(spec, results=tmp_path / results).to_row()).drop(TIMES)

    first = rows("a")
    pd.testing.assert_series_equal(rows("b"), first)
    assert (loads.count, calls) == (1, [3])
    rows("a", prototypes=2)
    rows("a", feature="mean")
    assert calls == [3, 2, 3]
