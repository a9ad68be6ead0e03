"""Identities between methods, for the references and for the fast implementations."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.parity import adapters
from tests.parity.adapters import trained
from tests.parity.comparing import assert_all_close, assert_close, gradients, leaves
from tests.parity.strategies import Problem, ShipShape, VptShape, ship_problem, vpt_problem
from tests.reference import ship, vpt
from tests.reference.tiny import TinyVit

TOLERANCE = 1e-10
RICH = TinyVit(depth=4, registers=2, layer_scale=True, qk_norm=True, pre_norm=True)
BACKBONES = [TinyVit(depth=4), RICH]
OFF = ship.Settings(levels=(0,), attention="coupled", matching_weight=0.0, attribute_levels=0)
FULL = ShipShape(
    backbone=TinyVit(depth=5),
    settings=ship.Settings(levels=(0, 1, 3)),
    length=4,
    shared=10,
    attribute=10,
    normalise_bank=False,
    batch=2,
    drop_rate=None,
    seed=3,
)

Outcome = tuple[Tensor, dict[str, Tensor]]


def vpt_as_ship(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """VPT's parameters with SHIP's names: one level per block with fresh prompts."""
    renamed = {name: value for name, value in parameters.items() if name != "prompts.tokens"}
    return renamed | {f"prompts.independent.{i}": rows for i, rows in enumerate(parameters["prompts.tokens"])}


def ship_as_vpt(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``vpt_as_ship``."""
    names = sorted(name for name in values if name.startswith("prompts.independent."))
    renamed = {name: value for name, value in values.items() if name not in names}
    return renamed | {"prompts.tokens": torch.stack([values[name] for name in names])}


def literal_ship(problem: Problem, settings: ship.Settings) -> Outcome:
    parameters = leaves(vpt_as_ship(problem.parameters))
    result = ship.forward(problem.vit, parameters, settings, problem.images, problem.labels)
    return result.logits, ship_as_vpt(gradients(result.loss, parameters))


def literal_vpt(problem: Problem) -> Outcome:
    parameters = leaves(problem.parameters)
    result = vpt.forward(problem.vit, parameters, problem.images, problem.labels)
    return result.logits, gradients(result.loss, parameters)


def fast_ship(problem: Problem, settings: ship.Settings) -> Outcome:
    length = problem.parameters["prompts.tokens"].shape[1]
    config = adapters.ship_config(settings, length=length, shared=0, attribute=0)
    bank = problem.images.new_zeros(1, problem.vit.embed_dim)
    model = adapters.build_ship(problem.vit, vpt_as_ship(problem.parameters), settings.levels, bank, config)
    terms = model.loss_terms(problem.images, problem.labels)
    return terms.logits, ship_as_vpt(gradients(terms.total, trained(model)))


def fast_vpt(problem: Problem) -> Outcome:
    model = adapters.build_vpt(problem.vit, problem.parameters)
    loss = model.loss(problem.images, problem.labels)
    return model(problem.images), gradients(loss, trained(model))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
@pytest.mark.parametrize(
    ("run_ship", "run_vpt"), [(literal_ship, literal_vpt), (fast_ship, fast_vpt)], ids=["literal", "fast"]
)
def test_ship_with_everything_off_is_vpt(
    run_ship: Callable[[Problem, ship.Settings], Outcome],
    run_vpt: Callable[[Problem], Outcome],
    deep: bool,
    backbone: TinyVit,
) -> None:
    problem = vpt_problem(VptShape(backbone, deep=deep, length=3, projection=None, batch=2, seed=5))
    levels = tuple(range(backbone.depth)) if deep else (0,)
    logits, slopes = run_ship(problem, replace(OFF, levels=levels))
    expected_logits, expected_slopes = run_vpt(problem)
    assert_close(logits, expected_logits, TOLERANCE, "logits")
    assert_all_close(slopes, expected_slopes, TOLERANCE)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_references_without_prompts_are_timms_own_forward(backbone: TinyVit) -> None:
    problem = vpt_problem(VptShape(backbone, deep=False, length=1, projection=None, batch=2, seed=6))
    head = {name: value for name, value in problem.parameters.items() if name.startswith("head.")}
    cls = problem.vit.forward_features(problem.images)[:, 0]
    logits = cls @ head["head.weight"].T + head["head.bias"]
    assert_close(vpt.forward(problem.vit, head, problem.images).logits, logits, TOLERANCE)
    assert_close(ship.forward(problem.vit, head, ship.Settings((0,)), problem.images).logits, logits, TOLERANCE)


def permuted(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters with independent and shared prompts in reverse order; attribute prompts are bound to ranks."""
    reordered = ("prompts.independent.", "prompts.shared")
    return {name: v.flip(0) if name.startswith(reordered) else v for name, v in parameters.items()}


@pytest.mark.parametrize("attention", ["decoupled", "coupled"])
@pytest.mark.parametrize("prompt_attention", ["last", "all"])
def test_order_of_prompts_changes_no_image_output(attention: str, prompt_attention: str) -> None:
    settings = replace(FULL.settings, attention=attention, prompt_attention=prompt_attention)
    shape = replace(FULL, settings=settings)
    problem = ship_problem(shape)
    results, losses = [], []
    for parameters in (problem.parameters, permuted(problem.parameters)):
        result = ship.forward(problem.vit, parameters, settings, problem.images, problem.labels, bank=problem.bank)
        config = adapters.ship_config(settings, length=shape.length, shared=shape.shared, attribute=10)
        model = adapters.build_ship(problem.vit, parameters, settings.levels, problem.bank, config)
        results.append(result)
        losses.append(model.loss(problem.images, problem.labels))
    for first, second in zip(results[0].blocks, results[1].blocks, strict=True):
        assert_close(first.image, second.image, TOLERANCE, "image tokens")
    assert_close(results[0].loss, results[1].loss, TOLERANCE, "literal loss")
    assert_close(losses[0], losses[1], TOLERANCE, "fast loss")


@pytest.mark.parametrize(
    "change",
    [
        {"levels": (0, 2, 3)},
        {"attention": "coupled"},
        {"prompt_attention": "all"},
        {"attention_scale": 0.2},
        {"attribute_scale": 0.2},
        {"attribute_levels": 1},
        {"temperature": 0.2},
    ],
    ids=str,
)
def test_every_setting_matters(change: dict[str, object]) -> None:
    problem = ship_problem(FULL)
    results = [
        ship.forward(problem.vit, problem.parameters, settings, problem.images, problem.labels, bank=problem.bank)
        for settings in (FULL.settings, replace(FULL.settings, **change))
    ]
    assert (results[0].logits - results[1].logits).abs().max().item() > 1e-4
