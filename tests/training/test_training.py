"""Schedules, optimiser groups and the loop, on a model small enough to follow by hand."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shipbench_baselines.full import FullModel
from torch import Tensor, nn

from shipbench.backbones import load_backbone
from shipbench.errors import InputError, ShipbenchError
from shipbench.events import Emitter, EpochDone
from shipbench.hardware.precision import ComputeContext
from shipbench.recipe import Recipe
from shipbench.training.history import Fit
from shipbench.training.inputs import FeatureInputs
from shipbench.training.loop import Hooks, evaluate, fit
from shipbench.training.optimisers import make_optimizer
from shipbench.training.schedule import learning_rates

CPU = ComputeContext(torch.device("cpu"), "fp32")


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.fixed = nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs)

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self(inputs), labels)


def separable(count: int) -> FeatureInputs:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    features = 3 * F.one_hot(labels, 4).float() + 0.1 * torch.randn(count, 4, generator=generator)
    return FeatureInputs(features, labels)


def trained(recipe: Recipe, seed: int = 0, inputs: FeatureInputs | None = None) -> tuple[Fit, list[EpochDone]]:
    torch.manual_seed(0)
    events: list[Any] = []
    inputs = inputs or separable(30)
    done = fit(Tiny(), inputs, separable(12), recipe, CPU, seed, Hooks(Emitter("a1", events.append)))
    assert events == [report.to_event("a1") for report in done.epochs]
    return done, events


def test_training_learns_and_reports_every_epoch() -> None:
    done, events = trained(Recipe(epochs=20, batch_size=8, lr=0.1, warmup_epochs=0))
    assert [event.epoch for event in events] == list(range(20))
    assert events[-1].train_loss < events[0].train_loss / 5
    assert [event.accuracy for event in events] == [None] * 19 + [1.0]
    assert done.evaluated[-1][1].accuracy == 1.0


class Static(Tiny):
    """A model whose steps can be recorded."""

    draws_on_device, stochastic_depth = False, None


@pytest.mark.parametrize("recorded", [False, True], ids=["computed", "recorded"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_training_equals_the_literal_loop(name: Any, recorded: bool, request: pytest.FixtureRequest) -> None:
    if recorded:
        request.getfixturevalue("tapes")
    inputs, model, order = separable(14), Static(), torch.Generator().manual_seed(7)
    literal = copy.deepcopy(model)
    recipe = Recipe(epochs=4, batch_size=6, lr=0.3, weight_decay=0.2, optimizer=name, warmup_epochs=2, drop_last=False)
    done = fit(model, inputs, inputs, recipe, CPU, 7)
    assert done.captured == recorded
    groups = [
        {"params": [literal.head.weight], "weight_decay": 0.2},
        {"params": [literal.head.bias], "weight_decay": 0},
    ]
    update = torch.optim.SGD(groups, momentum=0.9) if name == "sgd" else torch.optim.AdamW(groups)
    for rate, report in zip([0.1, 0.2, 0.3, 0.15], done.epochs, strict=True):
        losses = []
        for group in update.param_groups:
            group["lr"] = rate
        for chosen in torch.randperm(14, generator=order).split(6):
            update.zero_grad()
            losses.append(F.cross_entropy(literal(inputs.features[chosen]), inputs.labels[chosen]))
            losses[-1].backward()
            update.step()
        assert report.learning_rate == pytest.approx(rate)
        assert report.train_loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    for parameter, expected in zip(model.parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-6)


def test_evaluation_happens_when_the_recipe_says() -> None:
    assert [epoch for epoch, _ in trained(Recipe(epochs=7))[0].evaluated] == [6]
    assert [epoch for epoch, _ in trained(Recipe(epochs=7, eval_every=3))[0].evaluated] == [0, 3, 6]
    assert [epoch for epoch, _ in trained(Recipe(epochs=6, eval_every=2))[0].evaluated] == [0, 2, 4, 5]


def test_evaluating_more_often_changes_nothing_that_is_learned() -> None:
    once = trained(Recipe(epochs=5, lr=0.1))[0].evaluated[-1][1]
    often = trained(Recipe(epochs=5, lr=0.1, eval_every=1))[0].evaluated[-1][1]
    assert torch.equal(once.confidence, often.confidence)


def test_the_seed_decides_the_order_of_images() -> None:
    recipe = Recipe(epochs=3, batch_size=4, lr=0.1)
    same = [trained(recipe, seed=1)[1][-1].train_loss for _ in range(2)]
    assert same[0] == same[1]
    assert trained(recipe, seed=2)[1][-1].train_loss != same[0]


def test_the_last_partial_batch_is_dropped_if_the_recipe_says() -> None:
    assert trained(Recipe(epochs=1, batch_size=8))[1][0].images == 24
    assert trained(Recipe(epochs=1, batch_size=8, drop_last=False))[1][0].images == 30
    assert trained(Recipe(epochs=1, batch_size=64))[1][0].images == 30


def test_a_loss_that_is_not_finite_names_epoch_and_rate() -> None:
    broken = FeatureInputs(torch.full((6, 4), math.inf), torch.zeros(6, dtype=torch.long))
    with pytest.raises(ShipbenchError, match=r"the loss is nan in epoch 1 at learning rate"):
        trained(Recipe(epochs=2), inputs=broken)


def test_weight_decay_spares_biases_and_frozen_tensors_are_left_out() -> None:
    groups = make_optimizer(Tiny(), Recipe(weight_decay=0.3)).param_groups
    assert [[tuple(p.shape) for p in group["params"]] for group in groups] == [[(3, 4)], [(3,)]]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]


def test_weight_decay_spares_position_embeddings_and_class_token() -> None:
    model = FullModel(load_backbone("test_vit", checkpoint="random", image_size=32), 3)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[p] for p in group["params"]} for group in make_optimizer(model, Recipe()).param_groups)
    assert {"backbone.pos_embed", "backbone.cls_token", "backbone.norm.bias", "head.bias"} <= spared
    assert {"head.weight", "backbone.patch_embed.proj.weight", "backbone.blocks.0.mlp.fc1.weight"} <= decayed
    assert decayed | spared == set(names.values())


def test_evaluation_in_pieces_equals_evaluation_at_once() -> None:
    torch.manual_seed(0)
    model, inputs = Tiny(), separable(12)
    whole, pieces = evaluate(model, inputs, CPU), evaluate(model, inputs, CPU, batch_size=5)
    torch.testing.assert_close(whole.confidence, pieces.confidence)
    logits = model(inputs.features)
    assert whole.accuracy == pytest.approx(float((logits.argmax(1) == inputs.labels).float().mean()))
    assert whole.loss == pytest.approx(float(F.cross_entropy(logits, inputs.labels).detach()))


def test_the_cosine_warms_up_to_its_peak_and_ends_near_zero() -> None:
    rates = learning_rates("cosine", 1.0, 100, 10)
    assert rates.index(max(rates)) == 10
    assert max(rates) == 1.0
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize(
    "values", [{"lr": -1.0}, {"epochs": 0}, {"drop_path": 1.0}, {"std": (0.0, 1.0, 1.0)}, {"optimizer": "lion"}]
)
def test_recipes_that_cannot_be_trained_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        Recipe(**values)
