"""On the device of ``--device``, the fast passes equal the literal ones, stacks equal separate runs, and runs repeat.

``reports/gpu.sh`` runs this folder on a GPU. The default suite runs it on the CPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from shipbench.hardware.precision import ComputeContext
from shipbench.training.history import Fit
from shipbench.training.loop import Hooks
from shipbench.training.snapshot import Snapshot, random_states
from shipbench.training.stacked import Member, fit_stack
from tests.cuda.builders import MODELS, RECIPE, assert_identical, backbone, images, train, weights
from tests.parity import adapters
from tests.parity.adapters import build_vpt, trained
from tests.parity.comparing import assert_all_close, assert_close, gradients, leaves
from tests.parity.strategies import PAPER, Problem, ShipShape, VptShape, ship_problem, vpt_problem
from tests.reference import ship, vpt
from tests.reference.tiny import TinyVit

TOLERANCE = 1e-9
SHIPS = {
    "paper": PAPER,
    "coupled": replace(PAPER, settings=replace(PAPER.settings, attention="coupled")),
    "attending": replace(PAPER, settings=replace(PAPER.settings, prompt_attention="all"), drop_rate=0.3),
    "registers": replace(PAPER, backbone=TinyVit(depth=5, registers=2, layer_scale=True, qk_norm=True)),
}


def sent(problem: Problem, device: torch.device) -> Problem:
    """The problem on ``device``; stochastic-depth factors stay on the CPU."""
    return Problem(
        problem.vit.to(device),
        {name: value.to(device) for name, value in problem.parameters.items()},
        problem.bank.to(device),
        problem.images.to(device),
        problem.labels.to(device),
        problem.drop_factors,
    )


@pytest.mark.parametrize("shape", SHIPS.values(), ids=SHIPS)
def test_ship_equals_the_literal_loop(shape: ShipShape, device: torch.device) -> None:
    problem = sent(ship_problem(shape), device)
    config = adapters.config_of(shape)
    levels = shape.settings.levels
    model = adapters.build_ship(problem.vit, problem.parameters, levels, problem.bank, config).to(device).train()
    terms = model.loss_terms(problem.images, problem.labels, drop_factors=problem.drop_factors)
    parameters = leaves(problem.parameters)
    factors = None if problem.drop_factors is None else problem.drop_factors.to(device)
    images, labels = problem.images, problem.labels
    result = ship.forward(
        problem.vit, parameters, shape.settings, images, labels, bank=problem.bank, drop_factors=factors
    )
    assert_close(terms.logits, result.logits, TOLERANCE, "logits")
    assert_close(terms.total, result.loss, TOLERANCE, "loss")
    assert_all_close(gradients(terms.total, trained(model)), gradients(result.loss, parameters), TOLERANCE)


@pytest.mark.parametrize("deep", [True, False])
def test_vpt_equals_the_literal_loop(deep: bool, device: torch.device) -> None:
    problem = sent(vpt_problem(VptShape(TinyVit(depth=4), deep, 3, None, 3, 5)), device)
    model = build_vpt(problem.vit, problem.parameters).to(device)
    logits = model(problem.images)
    parameters = leaves(problem.parameters)
    result = vpt.forward(problem.vit, parameters, problem.images, problem.labels)
    assert_close(logits, result.logits, TOLERANCE, "logits")
    loss = torch.nn.functional.cross_entropy(logits, problem.labels)
    assert_all_close(gradients(loss, trained(model)), gradients(result.loss, parameters), TOLERANCE)


def test_the_literal_passes_stay_on_the_device_of_their_images() -> None:
    elsewhere = torch.device("meta")
    problem = sent(ship_problem(replace(PAPER, drop_rate=None)), elsewhere)
    images, labels = problem.images, problem.labels
    result = ship.forward(problem.vit, problem.parameters, PAPER.settings, images, labels, bank=problem.bank)
    assert result.logits.device == elsewhere
    problem = sent(vpt_problem(VptShape(TinyVit(depth=4), True, 3, None, 3, 5)), elsewhere)
    assert vpt.forward(problem.vit, problem.parameters, problem.images).logits.device == elsewhere


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("name", list(MODELS))
def test_a_training_repeats_bit_for_bit(name: str, optimizer: Any, compute: ComputeContext) -> None:
    recipe = replace(RECIPE, optimizer=optimizer)
    assert_identical(train(name, recipe, compute), train(name, recipe, compute))


@pytest.mark.parametrize("name", list(MODELS))
def test_a_resumed_training_continues_bit_for_bit(name: str, compute: ComputeContext) -> None:
    taken: list[Snapshot] = []
    whole, model = train(name, RECIPE, compute, Hooks(keep=lambda take: taken.append(take())))
    rest, same = train(name, RECIPE, compute, Hooks(start=taken[0]))
    assert rest.epochs[1:] != []
    for a, b in zip(rest.epochs[1:], whole.epochs[1:], strict=True):
        assert a.train_loss == b.train_loss
    for key, value in weights(model).items():
        assert torch.equal(value, weights(same)[key]), key


@pytest.mark.parametrize("name", ["ship", "vpt-deep"])
def test_a_stack_trains_every_run_as_if_it_were_alone(name: str, device: torch.device) -> None:
    compute = ComputeContext(device, "fp32")
    trunk = backbone(device)
    members = []
    for rate in (0.01, 0.003):
        torch.manual_seed(0)
        model = MODELS[name](trunk).to(device)
        # AdamW divides a gradient by its size, so the rounding of tiny ones would become steps of full size.
        recipe = replace(RECIPE, optimizer="sgd", lr=rate)
        members.append(Member(model, recipe, 0, random_states(device), Hooks()))
    evaluation = images(9, device, resident=False)
    outcomes = dict(fit_stack(members, images(14, device), evaluation, compute))
    for index, member in enumerate(members):
        alone, model = train(name, member.recipe, compute)
        outcome = outcomes[index]
        assert isinstance(outcome, Fit)
        losses = [report.train_loss for report in outcome.epochs]
        assert losses == pytest.approx([report.train_loss for report in alone.epochs], rel=1e-4)
        for key, value in weights(model).items():
            torch.testing.assert_close(weights(member.model)[key], value, rtol=1e-3, atol=1e-5, msg=key)
