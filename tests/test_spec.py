"""Specs, settings, grids and the catalogue: names resolved, values typed, ids stable."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipbench import RunSpec
from shipbench.errors import InputError
from shipbench.methods import get_method
from shipbench.planning.grid import make_grid, overrides_by_method, parse_seeds
from shipbench.settings import configure, convert, parse_pairs
from shipbench.tasks.catalogue import DEMO, VTAB
from shipbench.tasks.registry import TASKS, get_task, parse_tasks

IDENTITY = {"data_fingerprint": "d", "backbone_sha256": "b", "precision": "fp32"}
DIFFERENT = [
    {"seed": 1},
    {"method": "linear"},
    {"task": "svhn"},
    {"overrides": {"prompt_length": 11}},
    {"overrides": {"lr": 0.002}},
    {"protocol": "tuning"},
    # The same weights under another name are normalised in another way.
    {"backbone": "vit_base_patch16_224.mae"},
]
SAME = [
    {"data": Path("elsewhere")},
    {"device": "cpu"},
    {"checkpoint": "weights.pth"},
    {"overrides": {"prompt_length": 10}},
    {"overrides": {"lr": "1e-3"}},
]


def run_id(**changes: object) -> str:
    return replace(RunSpec("ship", "dtd"), **changes).resolved.run_id(**IDENTITY)


@pytest.mark.parametrize("changes", DIFFERENT)
def test_what_decides_the_result_decides_the_id(changes: dict[str, object]) -> None:
    assert run_id(**changes) != run_id()


@pytest.mark.parametrize("changes", SAME)
def test_where_things_lie_and_how_they_are_said_does_not(changes: dict[str, object]) -> None:
    assert run_id(**changes) == run_id()


@pytest.mark.parametrize("key", IDENTITY)
def test_data_weights_and_precision_decide_the_id(key: str) -> None:
    assert RunSpec("ship", "dtd").resolved.run_id(**IDENTITY | {key: "other"}) != run_id()


def test_the_id_of_a_spec_never_changes_by_accident() -> None:
    """A new value here means that every result on disk is run again: raise it on purpose or not at all."""
    spec = RunSpec("vpt-deep", "kitti", seed=3, overrides={"lr": 0.01})
    assert spec.resolved.run_id(**IDENTITY) == "baf85bdb78634ce9"


def test_paths_may_be_text() -> None:
    text = RunSpec("linear", "cifar100", data="somewhere/vtab", checkpoint="weights.npz")
    paths = RunSpec("linear", "cifar100", data=Path("somewhere/vtab"), checkpoint=Path("weights.npz"))
    assert (text, text.data, text.checkpoint) == (paths, paths.data, paths.checkpoint)
    assert text.data == Path("somewhere/vtab")


def test_a_seed_is_a_whole_number() -> None:
    assert run_id(seed=np.int64(3)) == run_id(seed=3)
    for odd in ("3", 3.0, None):
        with pytest.raises(InputError, match=re.escape(f"seed is {odd!r}; it must be a whole number")):
            RunSpec("ship", "dtd", seed=odd)  # type: ignore[arg-type]


@given(st.dictionaries(st.sampled_from(["lr", "weight_decay", "drop_path"]), st.floats(0, 0.9)), st.integers(0, 9))
def test_the_order_of_overrides_does_not_matter(values: dict[str, float], seed: int) -> None:
    one = RunSpec("linear", "dtd", seed, values)
    other = RunSpec("linear", "dtd", seed, dict(reversed(values.items())))
    assert one == other
    assert one.resolved.run_id(**IDENTITY) == other.resolved.run_id(**IDENTITY)


def test_published_settings_are_the_authors_own() -> None:
    resolved = RunSpec("ship", "cifar100", recipe="published").resolved
    assert (resolved.recipe.lr, resolved.recipe.weight_decay) == (0.001, 0.001)
    assert (resolved.settings.prompt_length, resolved.settings.threshold) == (50, 0.93)
    assert (resolved.recipe.epochs, resolved.recipe.batch_size, resolved.recipe.drop_path) == (100, 64, 0.1)
    assert resolved.recipe.schedule == "ship"
    # They computed in full precision, also where a device has a faster one.
    assert resolved.spec.precision == "fp32"
    assert RunSpec("ship", "cifar100", recipe="published", precision="bf16").precision == "bf16"


def test_the_protocol_decides_the_splits() -> None:
    assert RunSpec("ship", "dtd").resolved.splits == ("train", "test")
    assert RunSpec("ship", "dtd", protocol="tuning").resolved.splits == ("train800", "val200")
    with pytest.raises(InputError, match="unknown protocol 'oracle'"):
        RunSpec("ship", "dtd", protocol="oracle")  # type: ignore[arg-type]


def test_switches_follow_from_settings() -> None:
    assert RunSpec("ship", "dtd").resolved.switches == ""
    spec = RunSpec("ship", "dtd", overrides={"threshold": 1.0, "matching_weight": 0})
    assert spec.resolved.switches == "no-hierarchy+no-matching-loss"


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("0-4", [0, 1, 2, 3, 4]), ("0,2,5", [0, 2, 5]), ("1-2,2,7", [1, 2, 7])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "-1", "1-", "3-1", "a", "1;2", "1.5"])
def test_what_is_no_list_of_seeds(text: str) -> None:
    with pytest.raises(InputError, match="not a list of seeds"):
        parse_seeds(text)


def test_task_names() -> None:
    assert parse_tasks("all") == list(VTAB.tasks)
    assert parse_tasks("demo") == list(DEMO.tasks)
    assert [task.name for task in parse_tasks("cifar, oxford_pet,cifar100")] == ["cifar100", "oxford_iiit_pet"]
    assert len(parse_tasks("natural,specialized,structured")) == 19
    assert len(parse_tasks("structured")) == 8


@given(st.text(max_size=20))
def test_a_wrong_task_name_is_refused_by_name(text: str) -> None:
    names = {name for task in TASKS.values() for name in (task.name, *task.folder_names)}
    if text in names:
        assert text in (get_task(text).name, *get_task(text).folder_names)
        return
    with pytest.raises(InputError, match=re.escape(repr(text))):
        get_task(text)


@dataclass(frozen=True)
class Example:
    count: int = 1
    rate: float = 0.5
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    size: int | None = None
    mean: tuple[float, float, float] | None = None


def test_text_becomes_typed_settings() -> None:
    texts = {"count": "3", "rate": "1e-3", "flag": "yes", "kind": "b", "size": "7", "mean": "0.1,0.2,0.3"}
    assert configure(Example, texts) == Example(3, 0.001, True, "b", 7, (0.1, 0.2, 0.3))
    assert configure(Example, {"size": "none"}) == Example()


@pytest.mark.parametrize(
    ("key", "value"),
    [("count", "3.5"), ("rate", "nan"), ("flag", "maybe"), ("kind", "c"), ("size", "big"), ("mean", "1,2")],
)
def test_what_does_not_fit_is_named(key: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{key}='{value}' is not"):
        configure(Example, {key: value})


@given(st.integers(-(10**9), 10**9))
def test_numbers_survive_their_text(number: int) -> None:
    assert convert("count", int, str(number)) == number
    assert convert("rate", float, str(float(number))) == float(number)


def test_a_key_is_given_once() -> None:
    with pytest.raises(InputError, match="twice"):
        parse_pairs(["lr=1", "lr=2"])


def test_overrides_reach_the_methods_that_have_them() -> None:
    methods = [get_method("ship"), get_method("linear")]
    found = overrides_by_method(methods, {"prompt_length": 5, "lr": 0.1, "linear.epochs": 7})
    assert found == {"ship": {"prompt_length": 5, "lr": 0.1}, "linear": {"lr": 0.1, "epochs": 7}}


@pytest.mark.parametrize("keys", [("ship.lr", "lr"), ("lr", "ship.lr")])
def test_what_is_meant_for_one_method_counts_more_there(keys: tuple[str, str]) -> None:
    values = {"ship.lr": 0.5, "lr": 0.1}
    found = overrides_by_method([get_method("ship"), get_method("linear")], {key: values[key] for key in keys})
    assert found == {"ship": {"lr": 0.5}, "linear": {"lr": 0.1}}


def test_a_grid_is_every_combination_once() -> None:
    methods = [get_method("linear"), get_method("vpt-deep")]
    specs = make_grid(methods, parse_tasks("dtd,svhn"), [0, 1], RunSpec("ship", "dtd"), {})
    assert len({(s.method, s.task, s.seed) for s in specs}) == len(specs) == 8


def test_overrides_are_what_differs_from_the_recipe() -> None:
    assert RunSpec("ship", "dtd", overrides={"lr": 0.001}).resolved.overrides == ""
    changed = RunSpec("ship", "dtd", overrides={"prompt_length": "5", "lr": 0.01})
    assert changed.resolved.overrides == "lr=0.01, prompt_length=5"
