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


# method, grid: the number of points, the values that vary, and what every point resolves to.
GRIDS: list[tuple[str, str, int, dict[str, int], dict[str, Any]]] = [
    (
        "vpt-deep",
        "published",
        40,
        {"lr": 10, "weight_decay": 4},
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
        {"lr": 10, "weight_decay": 4},
        {"optimizer": "sgd", "drop_path": 0.0, "drop_last": False, "dropout": 0.0, "norm": IMAGENET},
    ),
    (
        "linear",
        "published",
        40,
        {"lr": 10, "weight_decay": 4},
        {"optimizer": "sgd", "schedule": "vpt", "drop_path": 0.0, "drop_last": False, "epochs": 100},
    ),
    (
        "full",
        "published",
        4,
        {"lr": 4},
        {"optimizer": "adamw", "schedule": "vpt", "weight_decay": 0.01, "warmup_epochs": 5, "drop_path": 0.0}
        | {"drop_last": False, "norm": IMAGENET},
    ),
    ("ship", "published", 120, {}, {"schedule": "cosine", "drop_path": 0.1}),
    ("convpass", "published", 10, {"scale": 5, "conv_init": 2}, {"schedule": "ship", "decay_all": True, "lr": 1e-3}),
    ("convpass-attn", "published", 10, {"scale": 5, "conv_init": 2}, {"weight_decay": 1e-4, "norm": IMAGENET}),
    ("fact-tt", "published", 15, {"scale": 5, "rank": 3}, {"schedule": "ship", "decay_all": True, "drop_path": 0.1}),
    ("fact-tk", "published", 10, {"scale": 5, "rank": 2}, {"schedule": "ship", "decay_all": True, "norm": IMAGENET}),
    ("repadapter", "published", 5, {"scale": 5}, {"schedule": "ship", "decay_all": True, "norm": IMAGENET}),
    ("repadapter-attn", "published", 5, {"scale": 5}, {"schedule": "ship", "dim": 8}),
    (
        "ssf",
        "published",
        42,
        {"lr": 7, "weight_decay": 2, "drop_path": 3},
        {"schedule": "ssf", "epochs": 110, "norm": HALF, "decay_all": False},
    ),
    ("adapter-plus", "published", 6, {"dim": 6}, {"schedule": "adapter-plus", "norm": HALF, "epochs": 100}),
    ("lora", "osu", 16, {"lr": 2, "weight_decay": 2, "rank": 4}, {"schedule": "ship", "decay_all": True, "norm": RAW}),
    ("adaptformer", "osu", 36, {"lr": 2, "weight_decay": 2, "dim": 3, "scale": 3}, {"decay_all": True, "norm": RAW}),
    ("bitfit", "osu", 4, {"lr": 2, "weight_decay": 2}, {"schedule": "ship", "norm": RAW}),
    ("ln-tuning", "osu", 4, {"lr": 2, "weight_decay": 2}, {"schedule": "ship", "norm": RAW}),
    ("difffit", "osu", 4, {"lr": 2, "weight_decay": 2}, {"schedule": "ship", "norm": RAW}),
]


@pytest.mark.parametrize(("method", "grid", "count", "varies", "fixed"), GRIDS)
def test_every_point_of_a_named_grid(
    method: str, grid: str, count: int, varies: dict[str, int], fixed: dict[str, Any]
) -> None:
    configs = [resolved(method, overrides=point) for point in points(method, grid)]
    assert len(configs) == count
    for name, number in varies.items():
        assert len({config[name] for config in configs}) == number
    for config in configs:
        shown = {**config, "norm": (config["mean"], config["std"])}
        assert {name: shown[name] for name in fixed} == fixed


def test_vpt_scales_its_rates_by_the_batch() -> None:
    assert {point["lr"] for point in points("vpt-deep", "published")} == {
        rate / 4 for rate in (50, 25, 10, 5, 2.5, 1, 0.5, 0.25, 0.1, 0.05)
    }
    assert {point["lr"] for point in points("full", "published")} == {r / 4 for r in (0.005, 0.001, 0.0005, 0.0001)}
    assert {point["weight_decay"] for point in points("linear", "published")} == {0.01, 0.001, 0.0001, 0.0}


NOAH = {"lr": 1e-3, "weight_decay": 1e-4, "schedule": "ship", "decay_all": False, "epochs": 100, "drop_path": 0.1}
JIE = NOAH | {"decay_all": True}
PUBLISHED: list[tuple[str, str, dict[str, Any]]] = [
    ("lora", "dtd", NOAH | {"init": "noah", "form": "noah", "rank": 8, "dropout": 0.1, "norm": IMAGENET}),
    ("adapter", "svhn", NOAH | {"init": "noah", "dim": 8, "eval_every": 10, "drop_last": True}),
    ("adaptformer", "kitti", NOAH | {"scale": 0.1, "dim": 8}),
    ("convpass", "svhn", JIE | {"scale": 100, "conv_init": "xavier", "norm": IMAGENET}),
    ("convpass", "cifar100", JIE | {"scale": 0.1, "conv_init": "identity"}),
    ("convpass-attn", "caltech101", JIE | {"scale": 100, "conv_init": "xavier"}),
    ("fact-tt", "clevr_dist", JIE | {"rank": 4, "scale": 10}),
    ("fact-tk", "smallnorb_azi", JIE | {"rank": 32, "scale": 100}),
    ("repadapter", "dsprites_ori", JIE | {"scale": 0.1}),
    ("repadapter-attn", "resisc45", JIE | {"scale": 0.1}),
    ("ssf", "clevr_dist", {"lr": 5e-2, "weight_decay": 5e-2, "drop_path": 0.1, "schedule": "ssf", "epochs": 110}),
    ("ssf", "patch_camelyon", {"lr": 5e-3, "weight_decay": 5e-5, "drop_path": 0.0, "norm": HALF, "decay_all": False}),
    ("adapter-plus", "dtd", {"dim": 2, "schedule": "adapter-plus", "norm": HALF, "lr": 1e-3, "eval_every": 0}),
    ("adapter-houlsby", "dtd", {"dim": 8, "schedule": "adapter-plus", "norm": HALF, "train_norms": True}),
    ("adapter-pfeiffer", "dtd", {"dim": 8, "schedule": "adapter-plus", "weight_decay": 1e-4}),
    ("bitfit", "dtd", {"lr": 1e-2, "schedule": "ship", "decay_all": True, "norm": RAW}),
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
