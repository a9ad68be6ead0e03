"""The fast forward passes compute the logits, losses and gradients of the literal ones in every configuration."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from torch import Tensor

from shipbench.errors import InputError
from shipbench.methods.ship import Ship
from shipbench.prompting import embed, evaluating, forward, stacked_forward
from tests.parity import adapters
from tests.parity.adapters import build_vpt, trained
from tests.parity.comparing import assert_all_close, assert_close, gradients, leaves
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
from tests.reference import ship, vpt
from tests.reference.tiny import TinyVit

TOLERANCE = 1e-9
few = hypothesis_settings(max_examples=25)


def fast(shape: ShipShape, problem: Problem) -> Ship:
    config = adapters.config_of(shape)
    return adapters.build_ship(problem.vit, problem.parameters, shape.settings.levels, problem.bank, config)


def literal(
    shape: ShipShape, problem: Problem, parameters: dict[str, Tensor], drop_factors: Tensor | None
) -> ship.Result:
    bank = torch.nn.functional.normalize(problem.bank, dim=-1) if shape.normalise_bank else problem.bank
    return ship.forward(
        problem.vit,
        parameters,
        shape.settings,
        problem.images,
        problem.labels,
        bank=bank,
        drop_factors=drop_factors,
    )


@few
@given(ship_shapes())
@example(PAPER)
def test_ship_training(shape: ShipShape) -> None:
    assert_trains_literally(shape)


@pytest.mark.parametrize(
    "change",
    [
        {"matching_weight": 2.0},
        {"top_k": 3},
        {"attention_scale": 0.45},
        {"attribute_scale": 0.35},
        {"temperature": 0.05},
        {"attribute_levels": 1},
        {"attention": "coupled"},
        {"prompt_attention": "all"},
        {"levels": (0, 2, 3, 4), "attribute_levels": 3},
    ],
    ids=str,
)
def test_ship_training_with_one_setting_at_another_value(change: dict[str, Any]) -> None:
    assert_trains_literally(replace(PAPER, settings=replace(PAPER.settings, **change)))


@pytest.mark.parametrize("change", [{"shared": 3}, {"attribute": 4}, {"length": 1}, {"normalise_bank": True}], ids=str)
def test_ship_training_with_prompts_of_another_length(change: dict[str, Any]) -> None:
    assert_trains_literally(replace(PAPER, **change))


def assert_trains_literally(shape: ShipShape) -> None:
    problem = ship_problem(shape)
    model = fast(shape, problem).train()
    terms = model.loss_terms(problem.images, problem.labels, drop_factors=problem.drop_factors)
    parameters = leaves(problem.parameters)
    result = literal(shape, problem, parameters, problem.drop_factors)
    assert_close(terms.logits, result.logits, TOLERANCE, "logits")
    assert_close(terms.cross_entropy, result.cross_entropy, TOLERANCE, "cross-entropy")
    assert_close(terms.total, result.loss, TOLERANCE, "total")
    if shape.settings.matching_weight > 0:
        assert_close(terms.matching, result.matching, TOLERANCE, "matching")
    assert_all_close(gradients(terms.total, trained(model)), gradients(result.loss, parameters), TOLERANCE)


@few
@given(ship_shapes())
@example(PAPER)
def test_ship_evaluation(shape: ShipShape) -> None:
    problem = ship_problem(shape)
    model = fast(shape, problem).eval()
    with torch.no_grad():
        result = literal(shape, problem, problem.parameters, None)
        assert_close(model(problem.images), result.logits, TOLERANCE, "logits")
        assert_close(model.loss(problem.images, problem.labels), result.loss, TOLERANCE, "loss")
    assert_close(model(problem.images), result.logits, TOLERANCE, "logits with gradients")
    trace = model.trace(problem.images)
    assert_all_close(dict(enumerate(trace.block_cls)), dict(enumerate(result.block_cls)), TOLERANCE)
    assert set(trace.selected_indices) == set(trace.selected_tokens) == set(result.attribute)
    for block, attribute in result.attribute.items():
        assert torch.equal(trace.selected_indices[block], attribute.selection.indices)
        assert_close(trace.selected_tokens[block], attribute.selection.tokens, TOLERANCE, "selected tokens")


def test_evaluation_follows_changed_parameters() -> None:
    problem = ship_problem(PAPER)
    model = fast(PAPER, problem).eval()
    changed = {name: value + 0.5 for name, value in problem.parameters.items()}
    with torch.no_grad():
        model(problem.images)
        for name, parameter in trained(model).items():
            parameter.copy_(changed[name])
        logits = model(problem.images)
    assert_close(logits, literal(PAPER, problem, changed, None).logits, TOLERANCE)


def test_evaluation_follows_parameters_that_change_without_a_trace() -> None:
    """Neither ``.data`` nor the replay of a captured optimiser raises a parameter's version."""
    problem = ship_problem(PAPER)
    model = fast(PAPER, problem).eval()
    changed = {name: value + 0.5 for name, value in problem.parameters.items()}
    with torch.no_grad():
        model(problem.images)
        for name, parameter in trained(model).items():
            parameter.data.copy_(changed[name])
        logits = model(problem.images)
    assert_close(logits, literal(PAPER, problem, changed, None).logits, TOLERANCE)


def test_one_evaluation_computes_shared_prompts_once_and_the_next_one_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, advanced = ship_problem(PAPER), list[str]()
    model = fast(PAPER, problem).eval()
    advance = forward.advance

    def watch(block: Any, survivors: list[Any], others: list[Any], *factors: Any) -> Any:
        advanced.extend(stream.name for stream in survivors + others)
        return advance(block, survivors, others, *factors)

    monkeypatch.setattr(forward, "advance", watch)
    with torch.no_grad():
        with evaluating(model):
            first = model(problem.images)
            shared = len(advanced)
            assert_close(model(problem.images), first, 0, "logits of the second batch")
            private = advanced[shared:]
            assert set(private) == {"attribute"}
            # Training in between, as a callback might do, ends the evaluation's memo.
            model.train().eval()
            for parameter in trained(model).values():
                parameter.data += 0.5
            assert not torch.allclose(model(problem.images), first)
        with evaluating(model):
            last = model(problem.images)
        for parameter in trained(model).values():
            parameter.data += 0.5
        assert not torch.allclose(model(problem.images), last)
        advanced.clear()
        model(problem.images)
        model(problem.images)
    assert len(advanced) == 2 * shared


@pytest.mark.parametrize("stacked", [False, True], ids=["alone", "stacked"])
@pytest.mark.parametrize("fused", [False, True], ids=["loop", "fused"])
def test_evaluation_follows_a_step_of_the_optimiser(fused: bool, stacked: bool) -> None:
    """A fused step, as on a GPU, changes parameters without incrementing their version counters."""
    problem = ship_problem(PAPER)
    model = fast(PAPER, problem).eval()
    optimizer = torch.optim.AdamW(trained(model).values(), lr=0.1, fused=fused)
    with torch.no_grad():
        before = model(problem.images)
    if stacked:
        inputs = [model.stack_input(len(problem.images), match=True)]
        (output,) = stacked_forward(problem.vit, embed(problem.vit, problem.images), inputs)
        model.loss_of(output, problem.labels).backward()
    else:
        model.loss(problem.images, problem.labels).backward()
    optimizer.step()
    with torch.no_grad():
        after = model(problem.images)
    assert not torch.allclose(before, after)
    assert_close(after, literal(PAPER, problem, trained(model), None).logits, TOLERANCE)


def test_evaluation_does_not_depend_on_the_batch() -> None:
    problem = ship_problem(PAPER)
    model = fast(PAPER, problem).eval()
    with torch.no_grad():
        alone = [model(image[None]) for image in problem.images]
        assert_close(torch.cat(alone), model(problem.images), TOLERANCE)


def test_ship_draws_stochastic_depth_in_training_only() -> None:
    shape = replace(PAPER, backbone=replace(PAPER.backbone, drop_path=0.7))
    problem = ship_problem(shape)
    model = fast(shape, problem)
    factors = adapters.drawn_factors(problem.vit, shape.batch, seed=11)
    assert not factors.all()
    plain = literal(shape, problem, problem.parameters, None)
    dropped = literal(shape, problem, problem.parameters, factors.double())
    torch.manual_seed(11)
    assert_close(model.train().loss(problem.images, problem.labels), dropped.loss, TOLERANCE, "training loss")
    torch.manual_seed(11)
    assert_close(model(problem.images), dropped.logits, TOLERANCE, "training logits")
    assert_close(model.eval().loss(problem.images, problem.labels), plain.loss, TOLERANCE, "loss without dropping")
    with torch.no_grad():
        assert_close(model(problem.images), plain.logits, TOLERANCE, "evaluation logits")


@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
def test_vpt_draws_stochastic_depth_in_training_only(deep: bool) -> None:
    shape = VptShape(TinyVit(drop_path=0.7), deep=deep, length=3, projection=None, batch=4, seed=8)
    problem = vpt_problem(shape)
    model = build_vpt(problem.vit, problem.parameters)
    parameters = leaves(problem.parameters)
    factors = adapters.drawn_factors(problem.vit, shape.batch, seed=11)
    assert not factors.all()
    dropped = vpt.forward(problem.vit, parameters, problem.images, problem.labels, drop_factors=factors.double())
    torch.manual_seed(11)
    loss = model.train().loss(problem.images, problem.labels)
    assert_close(loss, dropped.loss, TOLERANCE, "training loss")
    assert_all_close(gradients(loss, trained(model)), gradients(dropped.loss, parameters), TOLERANCE)
    plain = vpt.forward(problem.vit, parameters, problem.images, problem.labels)
    assert_close(model.eval()(problem.images), plain.logits, TOLERANCE, "evaluation logits")


def test_fewer_image_tokens_than_attribute_prompts_are_refused() -> None:
    shape = ShipShape(TinyVit(image_size=8), PAPER.settings, 2, 1, 10, False, 2, None, 0)
    with pytest.raises(InputError, match="attribute_length"):
        fast(shape, ship_problem(shape))


@few
@given(vpt_shapes())
def test_vpt(shape: VptShape) -> None:
    problem = vpt_problem(shape)
    parameters = leaves(problem.parameters)
    model = build_vpt(problem.vit, problem.parameters)
    result = vpt.forward(problem.vit, parameters, problem.images, problem.labels)
    with torch.no_grad():
        assert_close(model(problem.images), result.logits, TOLERANCE, "logits")
    loss = model.train().loss(problem.images, problem.labels)
    assert_close(loss, result.loss, TOLERANCE, "loss")
    assert_all_close(gradients(loss, trained(model)), gradients(result.loss, parameters), TOLERANCE)
