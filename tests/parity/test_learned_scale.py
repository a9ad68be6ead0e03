"""A trained attention scale: the literal pass with a tensor in place of the number, alone, in a stack, and in runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shipbench import RunSpec, load_results, run
from shipbench.methods import get_method
from shipbench.methods.ship import Ship, ShipConfig
from shipbench.prompting import embed, evaluating, stacked_forward
from shipbench.results.store import Store
from shipbench.runs.export import export_run, load_exported
from tests.conftest import Outcome
from tests.data.builders import vtab_tree
from tests.parity.adapters import trained
from tests.parity.comparing import assert_all_close, assert_close, gradients, leaves
from tests.parity.strategies import PAPER, Problem, ship_problem
from tests.reference import ship

TOLERANCE = 1e-9


def model_of(problem: Problem, scale: float = 0.1, **settings: Any) -> Ship:
    """A model with the problem's parameters and another scale than it starts from."""
    config = ShipConfig(prompt_length=PAPER.length, learn_scale=True, **settings)
    model = Ship(deepcopy(problem.vit), 3, list(PAPER.settings.levels), problem.bank, config).double()
    with torch.no_grad():
        for name, parameter in trained(model).items():
            parameter.copy_(problem.parameters[name] if name != "attention_scale" else torch.tensor(scale))
    return model


@pytest.mark.parametrize("prompt_attention", ["last", "all"])
@pytest.mark.parametrize("dropping", [False, True], ids=["whole", "dropping"])
def test_it_equals_the_literal_pass(dropping: bool, prompt_attention: Any) -> None:
    problem = ship_problem(PAPER)
    model = model_of(problem, scale=0.3, prompt_attention=prompt_attention).train()
    factors = problem.drop_factors if dropping else None
    terms = model.loss_terms(problem.images, problem.labels, drop_factors=factors)
    parameters = leaves({name: value.detach() for name, value in trained(model).items()})
    scale = parameters["attention_scale"]
    settings = replace(PAPER.settings, attention_scale=scale, prompt_attention=prompt_attention)
    result = ship.forward(
        problem.vit, parameters, settings, problem.images, problem.labels, bank=problem.bank, drop_factors=factors
    )
    assert_close(terms.logits, result.logits, TOLERANCE, "logits")
    slopes = gradients(terms.total, trained(model))
    assert_all_close(slopes, gradients(result.loss, parameters), TOLERANCE)
    assert slopes["attention_scale"].abs() > 1e-3


def test_stacked_runs_keep_scales_of_their_own() -> None:
    """Also where a CPU computes a branch only for the images that keep it."""
    problem = ship_problem(PAPER)
    models = [model_of(problem, scale).train() for scale in (0.05, 0.4, 0.9)]
    backbone = models[0].backbone
    inputs = [replace(m.stack_input(PAPER.batch, match=True), drop_factors=problem.drop_factors) for m in models]
    tokens = embed(backbone, problem.images).repeat(3, 1, 1)
    outputs = stacked_forward(backbone, tokens, inputs)
    losses = [model.loss_of(output, problem.labels) for model, output in zip(models, outputs, strict=True)]
    together = torch.stack(losses).sum()
    for model, loss in zip(models, losses, strict=True):
        alone = model.loss_terms(problem.images, problem.labels, drop_factors=problem.drop_factors).total
        assert_close(loss, alone, TOLERANCE, "loss")
        assert_all_close(gradients(together, trained(model)), gradients(alone, trained(model)), TOLERANCE)


def test_evaluation_follows_the_scale() -> None:
    problem = ship_problem(PAPER)
    model = model_of(problem).eval()

    def logits() -> Tensor:
        with torch.no_grad(), evaluating(model):
            return model(problem.images)

    before = logits()
    assert model.attention_scale is not None
    model.attention_scale.data.fill_(0.8)
    assert not torch.allclose(before, logits())
    assert model.learned() == {"attention_scale": pytest.approx(0.8)}


@pytest.mark.parametrize("stacked", [False, True], ids=["alone", "stacked"])
def test_it_computes_under_autocast(stacked: bool) -> None:
    problem = ship_problem(PAPER)
    model = model_of(problem).float().train()
    images = problem.images.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inputs = [model.stack_input(PAPER.batch, match=True)] * 2
        tokens = embed(model.backbone, images).repeat(2, 1, 1)
        outputs = stacked_forward(model.backbone, tokens, inputs)
        loss = model.loss_of(outputs[0], problem.labels) if stacked else model.loss(images, problem.labels)
    loss.backward()
    assert model.attention_scale is not None
    assert model.attention_scale.grad is not None
    assert model.attention_scale.grad.isfinite()


def test_coupled_attention_has_no_scale_to_train() -> None:
    problem = ship_problem(PAPER)
    config = ShipConfig(learn_scale=True, attention="coupled")
    model = Ship(problem.vit, 3, [0, 1, 3], problem.bank, config)
    assert "attention_scale" not in trained(model)
    assert model.learned() == {}
    assert get_method("ship").active_switches(config) == ("coupled-attention",)


def test_a_run_trains_records_and_exports_it(tmp_path: Path, cache: Path) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    settings = {"image_size": 64, "epochs": 2, "lr": 0.05, "warmup_epochs": 0, "learn_scale": True}
    spec = RunSpec("ship", "dtd", overrides=settings, backbone="test_vit", checkpoint="random", data=data)
    record = run(spec, results=tmp_path / "r")
    learned = json.loads(record.learned)["attention_scale"]
    assert abs(learned - 0.1) > 1e-3
    assert record.switches == "learned-scale"
    fixed = replace(spec, overrides={**settings, "learn_scale": False})
    assert record.trainable_params == run(fixed, results=tmp_path / "r").trainable_params + 1
    export_run(Store(tmp_path / "r"), record.run_id, tmp_path / "run.safetensors")
    model = load_exported(tmp_path / "run.safetensors", checkpoint="random").model
    assert model.get_parameter("attention_scale").item() == learned
    frame = load_results(tmp_path / "r")
    assert sorted(frame["learned"]) == ["", record.learned]


def test_its_switch_is_varied_only_when_named(shipbench: Callable[..., Outcome]) -> None:
    assert "learned-scale" in shipbench("list", "ablations").out
    variants = get_method("ship")
    assert "learned-scale" in variants.optional_switches
    assert len(variants.switches) == 5
