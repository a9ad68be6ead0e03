"""A stacked pass computes the logits, losses and gradients of separate passes in every configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from torch import Tensor

from shipbench.methods.ship import Ship
from shipbench.prompting import embed, stacked_forward
from shipbench.prompting.streams import PromptMemo
from tests.parity import adapters
from tests.parity.adapters import build_vpt, trained
from tests.parity.comparing import assert_all_close, assert_close, gradients
from tests.parity.strategies import (
    PAPER,
    Problem,
    ShipShape,
    VptShape,
    ship_problem,
    ship_shapes,
    vpt_problem,
    vpt_shapes,
)
from tests.reference.tiny import TinyVit

TOLERANCE = 1e-9
RUNS = 3
few = hypothesis_settings(max_examples=25)


def ship_models(shape: ShipShape) -> tuple[list[Ship], list[Problem]]:
    """Models with separate weights and batches that share the backbone and the bank of the first."""
    problems = [ship_problem(replace(shape, seed=shape.seed + run)) for run in range(RUNS)]
    first = problems[0]
    config = adapters.config_of(shape)
    levels = shape.settings.levels
    models = [adapters.build_ship(first.vit, p.parameters, levels, first.bank, config) for p in problems]
    return models, problems


def stacked(models: Sequence[Any], images: Tensor, inputs: Sequence[Any], memo: PromptMemo | None = None) -> list[Any]:
    backbone = models[0].backbone
    return stacked_forward(backbone, embed(backbone, images), inputs, memo)


@few
@given(ship_shapes())
@example(PAPER)
def test_ship_training(shape: ShipShape) -> None:
    models, problems = ship_models(shape)
    inputs = [
        replace(model.train().stack_input(shape.batch, match=True), drop_factors=problem.drop_factors)
        for model, problem in zip(models, problems, strict=True)
    ]
    outputs = stacked(models, torch.cat([problem.images for problem in problems]), inputs)
    losses = [model.loss_of(o, p.labels) for model, o, p in zip(models, outputs, problems, strict=True)]
    together = torch.stack(losses).sum()
    for model, problem, output, loss in zip(models, problems, outputs, losses, strict=True):
        alone = model.loss_terms(problem.images, problem.labels, drop_factors=problem.drop_factors)
        assert_close(model.logits_of(output), alone.logits, TOLERANCE, "logits")
        assert_close(loss, alone.total, TOLERANCE, "loss")
        parameters = trained(model)
        assert_all_close(gradients(together, parameters), gradients(alone.total, parameters), TOLERANCE)


@few
@given(ship_shapes())
@example(PAPER)
def test_ship_evaluation(shape: ShipShape) -> None:
    models, problems = ship_models(shape)
    images, memo = problems[0].images, PromptMemo()
    with torch.no_grad():
        # The last batch of a split is smaller and reuses the prompts in the memo.
        for count in (len(images), 1):
            some = images[:count]
            inputs = [model.eval().stack_input(count, match=False) for model in models]
            outputs = stacked(models, some.repeat(RUNS, 1, 1, 1), inputs, memo)
            for model, output in zip(models, outputs, strict=True):
                assert_close(model.logits_of(output), model(some), TOLERANCE, f"logits of {count} images")


@few
@given(vpt_shapes())
def test_vpt(shape: VptShape) -> None:
    problems = [vpt_problem(replace(shape, seed=shape.seed + run)) for run in range(RUNS)]
    models = [build_vpt(problems[0].vit, problem.parameters) for problem in problems]
    assert_same_draws_as_single_runs(models, problems)


@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
def test_vpt_with_dropout_and_stochastic_depth(deep: bool) -> None:
    shape = VptShape(TinyVit(drop_path=0.5), deep=deep, length=3, projection=5, batch=4, seed=8)
    problems = [vpt_problem(replace(shape, seed=shape.seed + run)) for run in range(RUNS)]
    config = VptConfig(prompt_length=3, project=5, dropout=0.3)
    models = [Vpt(problems[0].vit, 3, config, deep=deep).double() for _ in problems]
    assert_same_draws_as_single_runs(models, problems)


def test_ship_draws_the_stochastic_depth_of_single_runs() -> None:
    models, problems = ship_models(replace(PAPER, backbone=replace(PAPER.backbone, drop_path=0.7)))
    assert_same_draws_as_single_runs(models, problems)


def assert_same_draws_as_single_runs(models: Sequence[Any], problems: Sequence[Problem]) -> None:
    inputs = []
    for run, (model, problem) in enumerate(zip(models, problems, strict=True)):
        torch.manual_seed(run)
        inputs.append(model.train().stack_input(len(problem.images), match=True))
    outputs = stacked(models, torch.cat([problem.images for problem in problems]), inputs)
    losses = [model.loss_of(o, p.labels) for model, o, p in zip(models, outputs, problems, strict=True)]
    together = torch.stack(losses).sum()
    for run, (model, problem, loss) in enumerate(zip(models, problems, losses, strict=True)):
        torch.manual_seed(run)
        alone = model.loss(problem.images, problem.labels)
        assert_close(loss, alone, TOLERANCE, "loss")
        parameters = trained(model)
        assert_all_close(gradients(together, parameters), gradients(alone, parameters), TOLERANCE)


def test_a_loss_that_is_not_finite_affects_only_its_run() -> None:
    models, problems = ship_models(PAPER)
    with torch.no_grad():
        models[1].prompts.independent[0].fill_(float("nan"))
    inputs = [model.train().stack_input(PAPER.batch, match=True) for model in models]
    outputs = stacked(models, torch.cat([problem.images for problem in problems]), inputs)
    losses = [model.loss_of(o, p.labels) for model, o, p in zip(models, outputs, problems, strict=True)]
    torch.stack(losses).sum().backward()
    finite = [all(bool(p.grad.isfinite().all()) for p in trained(model).values()) for model in models]
    assert [bool(loss.isfinite()) for loss in losses] == finite == [True, False, True]
