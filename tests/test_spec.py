"""Specs, settings, grids and the catalogue: resolved names, typed values, stable run ids."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shipbench_baselines.settings import VptConfig

from shipbench import RunSpec
from shipbench.backbones import load_backbone
from shipbench.errors import InputError
from shipbench.methods import get_method
from shipbench.methods.ship import ShipConfig
from shipbench.planning.grid import make_grid, overrides_by_method, parse_seeds
from shipbench.recipe import Recipe
from shipbench.settings import Settings, configure, parse_pairs
from shipbench.tasks.catalogue import DEMO, VTAB, Draw
from shipbench.tasks.own import is_source
from shipbench.tasks.registry import TASKS, get_task, parse_tasks

IDENTITY = {"data_fingerprint": "d", "backbone_sha256": "b", "precision": "fp32"}
DIFFERENT = [
    {"seed": 1},
    {"method": "linear"},
    {"task": "svhn"},
    {"overrides": {"prompt_length": 11}},
    {"overrides": {"lr": 0.002}},
    {"protocol": "tuning"},
    # The same weights under another name have another normalisation.
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
def test_settings_that_change_the_result_change_the_id(changes: dict[str, object]) -> None:
    assert run_id(**changes) != run_id()


@pytest.mark.parametrize("changes", SAME)
def test_paths_devices_and_spellings_do_not_change_the_id(changes: dict[str, object]) -> None:
    assert run_id(**changes) == run_id()


@pytest.mark.parametrize("key", IDENTITY)
def test_data_weights_and_precision_change_the_id(key: str) -> None:
    assert RunSpec("ship", "dtd").resolved.run_id(**IDENTITY | {key: "other"}) != run_id()


def test_the_id_of_a_spec_is_pinned() -> None:
    """A new value here repeats every run on disk: change it on purpose or not at all."""
    spec = RunSpec("vpt-deep", "kitti", seed=3, overrides={"lr": 0.01})
    assert spec.resolved.run_id(**IDENTITY) == "16ab78d87af3069e"
    own = replace(get_task("folder:/a/bugs"), draw=Draw(9, None, 3), resize="crop")
    assert replace(spec, task=own, shots=2).resolved.run_id(**IDENTITY) == "75d96ae1f2166c59"


def test_paths_may_be_text() -> None:
    text = RunSpec("linear", "cifar100", data="somewhere/vtab", checkpoint="weights.npz")
    paths = RunSpec("linear", "cifar100", data=Path("somewhere/vtab"), checkpoint=Path("weights.npz"))
    assert (text, text.data, text.checkpoint) == (paths, paths.data, paths.checkpoint)
    assert text.data == Path("somewhere/vtab")


def test_a_seed_must_be_a_whole_number() -> None:
    assert run_id(seed=np.int64(3)) == run_id(seed=3)
    assert run_id(seed=torch.tensor(3)) == run_id(seed=3)
    for odd in ("3", 3.0, None, True):
        with pytest.raises(InputError, match=re.escape(f"seed is {odd!r}; it must be a whole number")):
            RunSpec("ship", "dtd", seed=odd)  # type: ignore[arg-type]


@given(st.dictionaries(st.sampled_from(["lr", "weight_decay", "drop_path"]), st.floats(0, 0.9)), st.integers(0, 9))
def test_the_order_of_overrides_does_not_matter(values: dict[str, float], seed: int) -> None:
    one = RunSpec("linear", "dtd", seed, values)
    other = RunSpec("linear", "dtd", seed, dict(reversed(values.items())))
    assert one == other
    assert one.resolved.run_id(**IDENTITY) == other.resolved.run_id(**IDENTITY)


def test_a_method_takes_precedence_over_its_suite_and_a_setting_over_both() -> None:
    demo = {name: RunSpec(name, "digits").resolved.recipe for name in ("ship", "full", "linear")}
    assert {name: (each.lr, each.epochs, each.warmup_epochs) for name, each in demo.items()} == {
        "ship": (5e-3, 4, 1),
        "full": (1e-4, 4, 1),
        "linear": (1e-2, 100, 10),
    }
    assert {(each.batch_size, each.drop_path, each.image_size) for each in demo.values()} == {(32, 0.0, 70)}
    chosen = RunSpec("full", "digits", overrides={"lr": 0.5, "epochs": 2}).resolved.recipe
    assert (chosen.lr, chosen.epochs, chosen.batch_size) == (0.5, 2, 32)


def test_the_seed_decides_the_shots() -> None:
    tasks = [RunSpec("linear", "dtd", seed=seed, shots=shots).resolved.task for seed, shots in ((3, 2), (4, 2), (4, 1))]
    assert [(task.shots, task.shot_seed) for task in tasks] == [(2, 3), (2, 4), (1, 4)]


def test_a_draw_of_its_own_seed_changes_the_id() -> None:
    few = replace(get_task("folder:/a/bugs"), shots=2)
    ids = [run_id(task=replace(few, shot_seed=seed)) for seed in (0, 1, 2)]
    assert len(set(ids)) == 3
    assert ids[0] == run_id(task=get_task("folder:/a/bugs"), shots=2)


@pytest.mark.parametrize(
    "changes",
    [{"augment": "flip-crop"}, {"resize": "crop"}, {"draw": Draw(9)}, {"shots": 2}, {"shots": 2, "shot_seed": 1}],
)
def test_a_changed_task_under_a_name_of_the_catalogue_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"task 'dtd' differs from the catalogue's in {', '.join(changes)}, but"):
        RunSpec("ship", replace(get_task("dtd"), **changes))


@pytest.mark.parametrize("method", ["ship", "adapter-plus"])
def test_own_images_have_no_published_settings_whatever_their_name(method: str) -> None:
    own = replace(get_task("folder:/a/bugs"), name="svhn")
    with pytest.raises(InputError, match="has no published settings for svhn"):
        _ = RunSpec(method, own, recipe="published").resolved


def test_published_settings_are_the_authors_own() -> None:
    resolved = RunSpec("ship", "cifar100", recipe="published").resolved
    assert (resolved.recipe.lr, resolved.recipe.weight_decay) == (0.001, 0.001)
    assert (resolved.settings.prompt_length, resolved.settings.threshold) == (50, 0.93)
    assert (resolved.recipe.epochs, resolved.recipe.batch_size, resolved.recipe.drop_path) == (100, 64, 0.1)
    assert resolved.recipe.schedule == "ship"
    # The authors computed in full precision, even on devices with a faster one.
    assert resolved.spec.precision == "fp32"
    assert RunSpec("ship", "cifar100", recipe="published", precision="bf16").precision == "bf16"


def test_the_protocol_decides_the_splits() -> None:
    assert RunSpec("ship", "dtd").splits == ("train", "test")
    assert RunSpec("ship", "dtd", protocol="tuning").splits == ("train800", "val200")
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
def test_malformed_lists_of_seeds_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a list of seeds"):
        parse_seeds(text)


def test_task_names() -> None:
    assert parse_tasks("all") == list(VTAB.tasks)
    assert parse_tasks("demo") == list(DEMO.tasks)
    assert [task.name for task in parse_tasks("cifar, oxford_pet,cifar100")] == ["cifar100", "oxford_iiit_pet"]
    assert len(parse_tasks("natural,specialized,structured")) == 19
    assert len(parse_tasks("structured")) == 8
    assert parse_tasks("CIFAR100,Oxford_Pet,cub,Demo-Tiny") == parse_tasks("cifar100,oxford_pet,CUB,demo-tiny")


def test_the_tasks_of_vtab_have_the_sizes_of_its_paper() -> None:
    assert {task.name: (task.group[:3], task.num_classes, task.n_test) for task in VTAB} == {
        "cifar100": ("Nat", 100, 10_000),
        "caltech101": ("Nat", 102, 6_084),
        "dtd": ("Nat", 47, 1_880),
        "oxford_flowers102": ("Nat", 102, 6_149),
        "oxford_iiit_pet": ("Nat", 37, 3_669),
        "svhn": ("Nat", 10, 26_032),
        "sun397": ("Nat", 397, 21_750),
        "patch_camelyon": ("Spe", 2, 32_768),
        "eurosat": ("Spe", 10, 5_400),
        "resisc45": ("Spe", 45, 6_300),
        "diabetic_retinopathy": ("Spe", 5, 42_670),
        "clevr_count": ("Str", 8, 15_000),
        "clevr_dist": ("Str", 6, 15_000),
        "dmlab": ("Str", 6, 22_735),
        "kitti": ("Str", 4, 711),
        "dsprites_loc": ("Str", 16, 73_728),
        "dsprites_ori": ("Str", 16, 73_728),
        "smallnorb_azi": ("Str", 18, 12_150),
        "smallnorb_ele": ("Str", 9, 12_150),
    }
    assert {tuple(task.counts.values())[:3] for task in VTAB} == {(800, 200, 1000)}


@given(st.text(max_size=20).filter(lambda text: not is_source(text)))
def test_a_wrong_task_name_is_refused_by_name(text: str) -> None:
    names = {name.lower(): task for task in TASKS.values() for name in (task.name, *task.folder_names)}
    if text.lower() in names:
        assert get_task(text) == names[text.lower()]
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
    assert configure(Example, {"size": "none"}) == configure(Example, {"size": "None"}) == Example()
    for mean in ("(0.1, 0.2, 0.3)", "[0.1, 0.2, 0.3]"):
        assert configure(Example, {"mean": mean}) == Example(mean=(0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("key", "value"),
    [("count", "3.5"), ("rate", "nan"), ("flag", "maybe"), ("kind", "c"), ("size", "big"), ("mean", "1,2")],
)
def test_text_that_does_not_fit_is_refused_by_key_and_value(key: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{key}='{value}' is not"):
        configure(Example, {key: value})


@given(st.integers(-(10**9), 10**9))
def test_numbers_survive_conversion_to_text(number: int) -> None:
    example = configure(Example, {"count": str(number), "rate": str(float(number))})
    assert (example.count, example.rate) == (number, float(number))


def test_pairs_are_read_with_or_without_spaces() -> None:
    assert parse_pairs(["lr = 1", "mean= 0,0,0 ", "checkpoint=a=b"]) == {
        "lr": "1",
        "mean": "0,0,0",
        "checkpoint": "a=b",
    }


@pytest.mark.parametrize("pair", ["lr", "lr=", "lr= ", "=1", " =1"])
def test_text_that_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"--set {pair!r} is not KEY=VALUE, as in --set lr=0.001")):
        parse_pairs([pair])


@pytest.mark.parametrize("keys", [("lr", "lr"), ("lr", " lr ")])
def test_a_repeated_key_is_refused(keys: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="gives 'lr' twice"):
        parse_pairs([f"{key}=1" for key in keys])


def test_a_plain_key_applies_to_every_method_with_that_setting() -> None:
    methods = [get_method("ship"), get_method("linear")]
    overrides = overrides_by_method(methods, {"prompt_length": 5, "lr": 0.1, "linear.epochs": 7})
    assert overrides == {"ship": {"prompt_length": 5, "lr": 0.1}, "linear": {"lr": 0.1, "epochs": 7}}


@pytest.mark.parametrize("keys", [("ship.lr", "lr"), ("lr", "ship.lr")])
def test_a_key_for_one_method_takes_precedence(keys: tuple[str, str]) -> None:
    values = {"ship.lr": 0.5, "lr": 0.1}
    overrides = overrides_by_method([get_method("ship"), get_method("linear")], {key: values[key] for key in keys})
    assert overrides == {"ship": {"lr": 0.5}, "linear": {"lr": 0.1}}


def test_a_grid_is_every_combination_once() -> None:
    methods = [get_method("linear"), get_method("vpt-deep")]
    specs = make_grid(methods, parse_tasks("dtd,svhn"), [0, 1], RunSpec("ship", "dtd"), {})
    assert len({(s.method, s.task, s.seed) for s in specs}) == len(specs) == 8
    # Seed by seed, so that the records of an unfinished grid make a table.
    assert [s.seed for s in specs] == [0] * 4 + [1] * 4
    assert [(s.task, s.method) for s in specs[:4]] == [
        ("dtd", "linear"), ("dtd", "vpt-deep"), ("svhn", "linear"), ("svhn", "vpt-deep"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        {"lr": 0.01, "epochs": 3},
        (("lr", 0.01), ("epochs", 3)),
        [["epochs", np.int64(3)], ["lr", "0.01"]],
        ("lr=0.01", "epochs=3"),
        ["epochs = 3", ("lr", 0.01)],
    ],
)
def test_overrides_are_a_mapping_or_pairs_or_texts(overrides: Any) -> None:
    assert RunSpec("ship", "dtd", overrides=overrides).resolved.overrides == "epochs=3, lr=0.01"


def test_one_text_is_one_override_and_none_are_no_overrides() -> None:
    assert RunSpec("ship", "dtd", overrides="lr=0.01").overrides == (("lr", "0.01"),)  # type: ignore[arg-type]
    assert RunSpec("ship", "dtd", overrides=None).overrides == ()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["lr"], "overrides 'lr' is not KEY=VALUE"),
        ([("lr", 1, 2)], "overrides hold \\('lr', 1, 2\\); give a mapping"),
        ([3], "overrides hold 3; give a mapping"),
        (["lr=1", ("lr", None)], "overrides give 'lr' twice"),
    ],
)
def test_other_overrides_are_refused(overrides: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        RunSpec("ship", "dtd", overrides=overrides)


@pytest.mark.parametrize("value", [None, 3, Path("data/bugs")])
def test_a_name_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"task is .*; give a name"):
        get_task(value)
    with pytest.raises(InputError, match=r"task is .*; give a name"):
        RunSpec("ship", value)
    with pytest.raises(InputError, match=r"backbone is .*; give the name of a timm model"):
        load_backbone(value)
    with pytest.raises(InputError, match=r"method is .*; give the name of a method"):
        get_method(value)


def test_overrides_list_the_differences_from_the_recipe() -> None:
    assert RunSpec("ship", "dtd", overrides={"lr": 0.001}).resolved.overrides == ""
    changed = RunSpec("ship", "dtd", overrides={"prompt_length": "5", "lr": 0.01})
    assert changed.resolved.overrides == "lr=0.01, prompt_length=5"


@pytest.mark.parametrize(
    ("config", "key", "value", "words"),
    [
        (Recipe, "epochs", 0, "epochs is 0; it must be 1 or more"),
        (Recipe, "lr", "-1", "lr is -1; it must be 0 or more"),
        (Recipe, "drop_path", 1, "drop_path is 1; it must be below 1"),
        (Recipe, "std", "0,1,1", "std is 0,1,1; its values must be above 0"),
        (Recipe, "epochs", True, "epochs=True is not a whole number below 2**31"),
        (Recipe, "mean", (True, 0, 0), "mean=(True, 0, 0) is not 3 numbers, as in 0.5,0.5,0.5 or none"),
        (Recipe, "epochs", 2**31, "epochs=2147483648 is not a whole number below 2**31"),
        (Recipe, "data_share", 1.5, "data_share is 1.5; it must be 1 or less"),
        (Recipe, "epochs", None, "epochs=None is not a whole number below 2**31"),
        (Recipe, "lr", float("inf"), "lr=inf is not a number that is finite"),
        (Recipe, "image_size", "big", "image_size='big' is not a whole number below 2**31 or none"),
        (ShipConfig, "threshold", -1.5, "threshold is -1.5; it must be -1 or more"),
        (ShipConfig, "attention_scale", 1.5, "attention_scale is 1.5; it must be 1 or less"),
        (ShipConfig, "temperature", 0, "temperature is 0; it must be 1e-06 or more"),
        (VptConfig, "dropout", 1, "dropout is 1; it must be below 1"),
    ],
)
def test_settings_check_themselves(config: type[Settings], key: str, value: object, words: str) -> None:
    for make in (lambda: configure(config, {key: value}), lambda: config(**{key: value})):
        with pytest.raises(InputError, match=f"^{re.escape(words)}$"):
            make()


@pytest.mark.parametrize("config", [Recipe, ShipConfig, VptConfig])
def test_defaults_pass_their_own_checks_and_keep_their_types(config: type[Settings]) -> None:
    for field in fields(config):
        value = getattr(config(), field.name)
        assert (value, type(value)) == (field.default, type(field.default))


def test_values_of_a_setting_have_one_type_however_they_are_written() -> None:
    for lr in (1, 1.0, "1", np.float64(1), np.int64(1)):
        recipe = Recipe(lr=lr)  # type: ignore[arg-type]
        assert (recipe.lr, type(recipe.lr)) == (1.0, float)
    assert replace(Recipe(), epochs=3.0).epochs == 3  # type: ignore[arg-type]
    assert type(replace(Recipe(), epochs=3.0).epochs) is int  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("prompt_length", np.int64(5), 5),
        ("prompt_length", np.uint8(5), 5),
        ("prompt_length", np.float32(5), 5),
        ("prompt_length", np.array(5), 5),
        ("prompt_length", torch.tensor(5), 5),
        ("end_layer", np.int32(3), 3),
        ("threshold", np.float32(0.5), 0.5),
        ("threshold", np.float64(0.93), 0.93),
        ("threshold", np.int64(1), 1.0),
        ("normalise_bank", np.bool_(True), True),
        ("attention", np.str_("coupled"), "coupled"),
        ("mean", np.array([0.25, 0.5, 0.75]), (0.25, 0.5, 0.75)),
        ("mean", [np.float32(0.25), np.int64(0), torch.tensor(0.5)], (0.25, 0.0, 0.5)),
    ],
)
def test_numbers_of_numpy_and_torch_are_settings(key: str, value: object, expected: object) -> None:
    spec = RunSpec("ship", "dtd", overrides={key: value})
    resolved = spec.resolved.config[key]
    assert (resolved, type(resolved)) == (expected, type(expected))
    python = RunSpec("ship", "dtd", overrides={key: expected})
    assert spec == python
    assert hash(spec) == hash(python)
    assert spec.resolved.run_id(**IDENTITY) == python.resolved.run_id(**IDENTITY)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("prompt_length", np.int64(-1), "prompt_length is -1; it must be 0 or more"),
        ("prompt_length", np.int64(2**31), "prompt_length=2147483648 is not a whole number below 2**31"),
        ("prompt_length", np.float64(1.5), "prompt_length=1.5 is not a whole number below 2**31"),
        ("prompt_length", np.bool_(True), "prompt_length=True is not a whole number below 2**31"),
        ("threshold", np.float32("nan"), "threshold=nan is not a number that is finite"),
        ("mean", np.zeros(2), "mean=(0.0, 0.0) is not 3 numbers, as in 0.5,0.5,0.5 or none"),
    ],
)
def test_numbers_of_numpy_that_do_not_fit_are_refused_like_those_of_python(key: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(words)}$"):
        _ = RunSpec("ship", "dtd", overrides={key: value}).resolved


class Pool(str, Enum):
    """How features are pooled."""

    MEAN = "mean"
    MAX = "max"


@dataclass(frozen=True)
class Pooling(Settings):
    """Settings with an enum and several of them."""

    pool: Pool = Pool.MEAN
    parts: tuple[Pool, ...] = (Pool.MEAN,)


def test_members_of_enums_are_written_as_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(get_method("linear")), "settings", Pooling)
    resolved = RunSpec("linear", "dtd", overrides={"pool": "max", "parts": "max,mean"}).resolved
    assert resolved.overrides == "parts=('max', 'mean'), pool=max"
    assert type(resolved.config["pool"]) is str
