"""What every point of a named grid and every published recipe resolves to."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from shipbench import RunSpec
from shipbench.errors import InputError
from shipbench.methods import SMALL_GRID, get_method
from shipbench.published import published_settings
from shipbench.recipe import Recipe
from shipbench.tasks import parse_tasks
from shipbench.training.loop import make_optimizer
from shipbench.training.schedule import learning_rates
from tests.methods.shipped import SHIPPED

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RAW = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
VTAB = [task.name for task in parse_tasks("all")]


def points(method: str, grid: str) -> list[dict[str, Any]]:
    axes = get_method(method).grids()[grid]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def resolved(method: str, **fields: Any) -> dict[str, Any]:
    return RunSpec(method, "dtd", **fields).resolved.config


@pytest.mark.parametrize("method", SHIPPED)
def test_small_is_one_budget_for_every_method(method: str) -> None:
    assert get_method(method).grids()["small"] == SMALL_GRID
    assert [resolved(method, overrides=point)["lr"] for point in points(method, "small")] == list(SMALL_GRID["lr"])
    assert min(SMALL_GRID["lr"]) <= resolved(method)["lr"] <= max(SMALL_GRID["lr"])  # type: ignore[type-var,operator]


def test_three_methods_have_a_rate_of_their_own_without_a_recipe() -> None:
    rates = {method: resolved(method)["lr"] for method in SHIPPED}
    assert {method: rate for method, rate in rates.items() if rate != 1e-3} == {
        "full": 1e-4,
        "linear": 1e-2,
        "partial": 1e-4,
    }


# Defaults that decide results but no shape of a tensor, which other tests count.
DEFAULTS: dict[str, dict[str, Any]] = {
    "ship": {"threshold": 0.95, "attention": "decoupled", "attention_scale": 0.1, "attribute_scale": 0.1}
    | {"matching_weight": 0.5, "top_k": 10, "temperature": 1.0, "prototypes": 200, "feature": "cls"},
    "vpt-deep": {"dropout": 0.0, "location": "prepend", "pooling": "original", "deep_order": "forward"},
    "lora": {"form": "noah", "init": "zero_b", "scale": 1.0, "alpha": 8.0, "dropout": 0.1},
    "adaptformer": {"scale": 0.1, "dropout": 0.1, "placement": "parallel"},
    "ssf": {"init": "normal"},
    "convpass": {"scale": 1.0, "dropout": 0.1, "conv_init": "xavier"},
    "fact-tt": {"scale": 1.0, "dropout": 0.1},
    "fact-tk": {"scale": 1.0, "dropout": 0.1},
    "repadapter": {"scale": 1.0, "dropout": 0.1, "groups": 2},
    "adapter": {"form": "noah", "init": "noah", "dropout": 0.1},
    "adapter-houlsby": {"scale": 1.0, "adapter_drop_path": 0.1, "train_norms": True},
    "adapter-pfeiffer": {"scale": 1.0, "adapter_drop_path": 0.1},
    "adapter-plus": {"scaling": "channel", "adapter_drop_path": 0.1},
}


@pytest.mark.parametrize("method", DEFAULTS)
def test_defaults(method: str) -> None:
    assert DEFAULTS[method].items() <= resolved(method).items()


SCALES = {0.01, 0.1, 1.0, 10.0, 100.0}
STARTS = {"xavier", "identity"}
# VPT's rates are for a batch of 256.
VPT = {
    "lr": {rate / 4 for rate in (50, 25, 10, 5, 2.5, 1, 0.5, 0.25, 0.1, 0.05)},
    "weight_decay": {0.01, 0.001, 0.0001, 0.0},
}
OSU = {"lr": {1e-3, 1e-2}, "weight_decay": {1e-4, 1e-3}}
BY_SCALE = {"lr": 1e-3, "weight_decay": 1e-4, "schedule": "ship", "decay_all": True, "drop_path": 0.1, "norm": IMAGENET}
PLUS = {"lr": 1e-3, "weight_decay": 1e-4, "schedule": "adapter-plus", "norm": HALF, "adapter_drop_path": 0.1}
# method, grid: the number of points, the values that vary, and what every point resolves to.
GRIDS: list[tuple[str, str, int, dict[str, set[Any]], dict[str, Any]]] = [
    (
        "vpt-deep",
        "published",
        40,
        VPT,
        {
            "optimizer": "sgd",
            "schedule": "vpt",
            "drop_path": 0.0,
            "drop_last": False,
            "dropout": 0.1,
            "warmup_epochs": 10,
        }
        | {"epochs": 100, "batch_size": 64, "prompt_length": 10, "norm": IMAGENET},
    ),
    (
        "vpt-shallow",
        "published",
        40,
        VPT,
        {"optimizer": "sgd", "drop_path": 0.0, "drop_last": False, "dropout": 0.0, "norm": IMAGENET},
    ),
    (
        "linear",
        "published",
        40,
        VPT,
        {"optimizer": "sgd", "schedule": "vpt", "drop_path": 0.0, "drop_last": False, "epochs": 100},
    ),
    (
        "full",
        "published",
        4,
        {"lr": {rate / 4 for rate in (0.005, 0.001, 0.0005, 0.0001)}},
        {"optimizer": "adamw", "schedule": "vpt", "weight_decay": 0.01, "warmup_epochs": 5, "drop_path": 0.0}
        | {"drop_last": False, "norm": IMAGENET},
    ),
    ("ship", "published", 120, {}, {"schedule": "cosine", "drop_path": 0.1}),
    ("convpass", "published", 10, {"scale": SCALES, "conv_init": STARTS}, BY_SCALE),
    ("convpass-attn", "published", 10, {"scale": SCALES, "conv_init": STARTS}, BY_SCALE),
    ("fact-tt", "published", 15, {"scale": SCALES, "rank": {4, 8, 16}}, BY_SCALE),
    ("fact-tk", "published", 10, {"scale": SCALES, "rank": {16, 32}}, BY_SCALE),
    ("repadapter", "published", 5, {"scale": {0.1, 0.5, 1, 5, 10}}, BY_SCALE),
    ("repadapter-attn", "published", 5, {"scale": {0.1, 0.5, 1, 5, 10}}, BY_SCALE | {"dim": 8}),
    (
        "ssf",
        "published",
        42,
        {"lr": {1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2}, "weight_decay": {5e-5, 5e-2}, "drop_path": {0, 0.1, 0.2}},
        {"schedule": "ssf", "epochs": 110, "norm": HALF, "decay_all": False},
    ),
    ("adapter-plus", "published", 6, {"dim": {1, 2, 4, 8, 16, 32}}, PLUS | {"epochs": 100}),
    ("lora", "osu", 16, OSU | {"rank": {1, 8, 16, 32}}, {"schedule": "ship", "decay_all": True, "norm": RAW}),
    ("adaptformer", "osu", 36, OSU | {"dim": {4, 16, 32}, "scale": {0.05, 0.1, 0.2}}, {"decay_all": True, "norm": RAW}),
    ("bitfit", "osu", 4, OSU, {"schedule": "ship", "norm": RAW}),
    ("ln-tuning", "osu", 4, OSU, {"schedule": "ship", "norm": RAW}),
    ("difffit", "osu", 4, OSU, {"schedule": "ship", "norm": RAW}),
]


@pytest.mark.parametrize(("method", "grid", "count", "varies", "fixed"), GRIDS)
def test_every_point_of_a_named_grid(
    method: str, grid: str, count: int, varies: dict[str, set[Any]], fixed: dict[str, Any]
) -> None:
    configs = [resolved(method, overrides=point) for point in points(method, grid)]
    assert len(configs) == count
    assert {name: {config[name] for config in configs} for name in varies} == varies
    for config in configs:
        shown = {**config, "norm": (config["mean"], config["std"])}
        assert {name: shown[name] for name in fixed} == fixed


NOAH = {"lr": 1e-3, "weight_decay": 1e-4, "schedule": "ship", "decay_all": False, "epochs": 100, "drop_path": 0.1}
NOAH |= {"dropout": 0.1, "eval_every": 10, "batch_size": 64}
JIE = NOAH | {"decay_all": True}
PUBLISHED: list[tuple[str, str, dict[str, Any]]] = [
    ("lora", "dtd", NOAH | {"init": "noah", "form": "noah", "rank": 8, "norm": IMAGENET}),
    ("adapter", "svhn", NOAH | {"init": "noah", "dim": 8, "drop_last": True}),
    ("adaptformer", "kitti", NOAH | {"scale": 0.1, "dim": 8}),
    ("convpass", "svhn", JIE | {"scale": 100, "conv_init": "xavier", "norm": IMAGENET}),
    ("convpass", "cifar100", JIE | {"scale": 0.1, "conv_init": "identity"}),
    ("convpass-attn", "caltech101", JIE | {"scale": 100, "conv_init": "xavier"}),
    ("fact-tt", "clevr_dist", JIE | {"rank": 4, "scale": 10}),
    ("fact-tk", "smallnorb_azi", JIE | {"rank": 32, "scale": 100}),
    ("repadapter", "dsprites_ori", JIE | {"scale": 0.1}),
    ("repadapter-attn", "resisc45", JIE | {"scale": 0.1}),
    (
        "ssf",
        "clevr_dist",
        {"lr": 5e-2, "weight_decay": 5e-2, "drop_path": 0.1, "schedule": "ssf", "epochs": 110, "eval_every": 1},
    ),
    ("ssf", "patch_camelyon", {"lr": 5e-3, "weight_decay": 5e-5, "drop_path": 0.0, "norm": HALF, "decay_all": False}),
    ("adapter-plus", "dtd", PLUS | {"dim": 2, "eval_every": 0}),
    ("adapter-houlsby", "dtd", PLUS | {"dim": 8, "train_norms": True}),
    ("adapter-pfeiffer", "dtd", PLUS | {"dim": 8}),
    ("bitfit", "dtd", {"lr": 1e-2, "schedule": "ship", "decay_all": True, "norm": RAW, "eval_every": 1}),
    ("ship", "dtd", {"schedule": "ship", "eval_every": 10, "matching_weight": 0.5, "top_k": 10, "prototypes": 200}),
]


@pytest.mark.parametrize(("method", "task", "expected"), PUBLISHED)
def test_published_recipes(method: str, task: str, expected: dict[str, Any]) -> None:
    spec = RunSpec(method, task, recipe="published")
    config = spec.resolved.config
    shown = {**config, "norm": (config["mean"], config["std"]), "epochs": config["epochs"]}
    assert {name: shown[name] for name in expected} == expected
    assert spec.precision == "fp32"


@pytest.mark.parametrize("method", published_settings())
def test_published_settings_cover_vtab_and_nothing_else(method: str) -> None:
    for task in VTAB:
        assert (
            published_settings()[method][task].items()
            <= RunSpec(method, task, recipe="published").resolved.config.items()
        )
    with pytest.raises(InputError, match="has no published settings for digits; use --recipe default"):
        RunSpec(method, "digits", recipe="published").resolved  # noqa: B018


@pytest.mark.parametrize("method", ["lora", "adaptformer", "adapter", "adapter-houlsby"])
def test_a_common_published_setting_is_for_vtab_alone(method: str) -> None:
    with pytest.raises(InputError, match=f"{method} has no published settings for digits"):
        RunSpec(method, "digits", recipe="published").resolved  # noqa: B018


def test_mean_of_published_ranks_gives_the_published_counts() -> None:
    """FacT's 0.069 M and 0.040 M are means over per-task ranks."""
    tt = [settings["rank"] for settings in published_settings()["fact-tt"].values()]
    tk = [settings["rank"] for settings in published_settings()["fact-tk"].values()]
    assert sum(2 * 768 * r + 144 * r * r for r in tt) / 19 == pytest.approx(39_733.895, abs=0.01)
    assert sum(2 * 768 * r + 144 * r + r**3 for r in tk) / 19 == pytest.approx(68_985.263, abs=0.01)


def test_schedule_of_ssf() -> None:
    rates = learning_rates("ssf", 5e-3, 110, 10)
    assert rates[0] == 1e-7
    assert rates[5] == pytest.approx(1e-7 + (5e-3 - 1e-7) / 2)
    assert rates[10] == pytest.approx(1e-8 + (5e-3 - 1e-8) * 0.9755283)
    assert rates[50] == pytest.approx((5e-3 + 1e-8) / 2)
    assert rates[100:] == pytest.approx([1e-8] * 10)


def test_schedule_of_adapter_plus() -> None:
    rates = learning_rates("adapter-plus", 1e-3, 100, 10)
    assert rates[0] == pytest.approx(1e-5)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[55] == pytest.approx((1e-3 + 1e-6) / 2)
    assert rates[99] == pytest.approx(1e-6, rel=0.4)


@pytest.mark.parametrize("schedule", ["ssf", "adapter-plus"])
@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (1, 10), (5, 10), (10, 10), (11, 10), (3, 1)])
def test_schedules_of_few_epochs_stay_positive_and_below_the_peak(schedule: str, epochs: int, warmup: int) -> None:
    rates = learning_rates(schedule, 1e-2, epochs, warmup)
    assert len(rates) == epochs
    assert all(0 < rate <= 1e-2 for rate in rates)


@pytest.mark.parametrize(("decay_all", "decayed"), [(False, {"weight"}), (True, {"weight", "bias"})])
def test_decay_of_vectors(decay_all: bool, decayed: set[str]) -> None:
    layer = torch.nn.Linear(2, 2)
    names = {id(parameter): name for name, parameter in layer.named_parameters()}
    optimizer = make_optimizer(layer, Recipe(weight_decay=0.5, decay_all=decay_all))
    groups = [group for group in optimizer.param_groups if group["weight_decay"] == 0.5]
    assert {names[id(parameter)] for group in groups for parameter in group["params"]} == decayed
