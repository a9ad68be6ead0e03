"""Runs trained together have the epochs, weights and snapshots of runs trained alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shipbench.backbones import load_backbone
from shipbench.errors import ShipbenchError
from shipbench.events import Emitter, EpochDone, Event
from shipbench.hardware.precision import ComputeContext
from shipbench.recipe import Recipe
from shipbench.training import stacked
from shipbench.training.history import Fit
from shipbench.training.loop import Hooks, fit
from shipbench.training.snapshot import Snapshot, random_states
from shipbench.training.stacked import Member, fit_stack
from tests.clock import Clock
from tests.training.models import STACKABLE, images, ship

CPU = ComputeContext(torch.device("cpu"), "fp32")
EPOCHS = 3
# Without drop_last, batches of 6 out of 14 images leave a last one of 2.
RECIPE = Recipe(epochs=EPOCHS, batch_size=6, lr=0.01, warmup_epochs=1, eval_every=1, drop_last=False)
RUNS = [(RECIPE, 0), (replace(RECIPE, lr=0.003, weight_decay=0.1), 0), (RECIPE, 5)]
SGD = [(replace(recipe, optimizer="sgd"), seed) for recipe, seed in RUNS]
TRAIN, TEST = images(14), images(9)


def backbone() -> Any:
    return load_backbone("test_vit", checkpoint="random", image_size=32, drop_path=0.4)


def built(build: Callable[[Any], nn.Module], seed: int, trunk: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build(trunk)


def member(build: Callable[[Any], nn.Module], run: tuple[Recipe, int], trunk: Any, **hooks: Any) -> Member:
    recipe, seed = run
    return Member(built(build, seed, trunk), recipe, seed, random_states(CPU.device), Hooks(**hooks))


def together(members: Sequence[Member]) -> list[Fit | ShipbenchError]:
    outcomes = dict(fit_stack(members, TRAIN, TEST, CPU))
    return [outcomes[index] for index in range(len(members))]


def alone(build: Callable[[Any], nn.Module], run: tuple[Recipe, int], **hooks: Any) -> tuple[Fit, nn.Module]:
    recipe, seed = run
    model = built(build, seed, backbone())
    return fit(model, TRAIN, TEST, recipe, CPU, seed, Hooks(**hooks)), model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def assert_same_fit(actual: Fit | ShipbenchError, expected: Fit) -> None:
    assert isinstance(actual, Fit), actual
    assert len(actual.epochs) == len(expected.epochs)
    for a, b in zip(actual.epochs, expected.epochs, strict=True):
        assert (a.epoch, a.epochs, a.learning_rate, a.images) == (b.epoch, b.epochs, b.learning_rate, b.images)
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-4)
        assert a.train_seconds > 0
        assert a.evaluation is not None
        assert b.evaluation is not None
        assert a.evaluation.loss == pytest.approx(b.evaluation.loss, rel=1e-4)
        assert torch.equal(a.evaluation.predicted, b.evaluation.predicted)
        torch.testing.assert_close(a.evaluation.confidence, b.evaluation.confidence, rtol=1e-4, atol=1e-5)


def assert_same_weights(actual: nn.Module, expected: nn.Module) -> None:
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(actual)[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", list(STACKABLE))
@pytest.mark.parametrize("runs", [RUNS, SGD], ids=["adamw", "sgd"])
def test_a_stack_trains_every_run_as_if_it_were_alone(name: str, runs: list[tuple[Recipe, int]]) -> None:
    trunk = backbone()
    members = [member(STACKABLE[name], run, trunk) for run in runs]
    for one, run, end in zip(members, runs, together(members), strict=True):
        expected, model = alone(STACKABLE[name], run)
        assert_same_fit(end, expected)
        assert_same_weights(one.model, model)


def test_one_evaluation_and_a_fair_share_of_the_time() -> None:
    runs = [(replace(recipe, eval_every=0), seed) for recipe, seed in RUNS]
    trunk = backbone()
    start = time.perf_counter()
    ends = together([member(ship, run, trunk) for run in runs])
    elapsed = time.perf_counter() - start
    reports = [report for end in ends if isinstance(end, Fit) for report in end.epochs]
    assert [report.epoch for report in reports if report.evaluation is not None] == [EPOCHS - 1] * 3
    assert sum(report.train_seconds + report.eval_seconds for report in reports) < elapsed
    assert {report.runs for report in reports} == {3}


@pytest.fixture
def _timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step of a stack take one second, an evaluation 30 seconds, and all else no time."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(stacked._Stack, "_step", clock.spending(1, stacked._Stack._step))
    monkeypatch.setattr(stacked, "_evaluate", clock.spending(30, stacked._evaluate))


@pytest.mark.usefixtures("_timed")
def test_the_seconds_of_an_epoch_and_of_an_evaluation_are_divided_equally() -> None:
    trunk = backbone()
    ends = together([member(ship, (replace(recipe, eval_every=0), seed), trunk) for recipe, seed in RUNS])
    for end in ends:
        assert isinstance(end, Fit)
        # Three steps of three runs.
        assert [report.train_seconds for report in end.epochs] == [1.0] * EPOCHS
        assert [report.eval_seconds for report in end.epochs] == [0.0] * (EPOCHS - 1) + [10.0]


@pytest.mark.usefixtures("_timed")
def test_an_evaluation_that_only_some_runs_are_due_for_takes_time_of_every_run() -> None:
    build, trunk, snapshots = STACKABLE["ship"], backbone(), list[Snapshot]()
    recipe = replace(RECIPE, eval_every=2)
    alone(build, (recipe, 0), keep=keeping(snapshots))
    # The first run is one epoch ahead: both train for two epochs, and the second one then for another.
    ends = together([member(build, (recipe, 0), trunk, start=snapshots[0]), member(build, (recipe, 5), trunk)])
    reports = [end.epochs[1 - index :] for index, end in enumerate(ends) if isinstance(end, Fit)]
    assert [[report.evaluation is not None for report in of_run] for of_run in reports] == [
        [False, True], [True, False, True],
    ]  # fmt: skip
    seconds = [[(report.train_seconds, report.eval_seconds, report.runs) for report in of_run] for of_run in reports]
    assert seconds == [[(1.5, 15.0, 2)] * 2, [(1.5, 15.0, 2)] * 2 + [(3.0, 30.0, 1)]]


def keeping(taken: list[Snapshot]) -> Callable[[Callable[[], Snapshot]], None]:
    return lambda take: taken.append(take())


@pytest.mark.parametrize("name", list(STACKABLE))
def test_snapshots_go_both_ways_and_need_not_be_of_the_same_epoch(name: str) -> None:
    build, trunk = STACKABLE[name], backbone()
    from_stack: list[Snapshot] = []
    together([member(build, RUNS[0], trunk, keep=keeping(from_stack)), member(build, RUNS[2], trunk)])
    # None after the last epoch: it would hold no predictions.
    assert [len(snapshot.epochs) for snapshot in from_stack] == list(range(1, EPOCHS))
    expected, model = alone(build, RUNS[0])
    resumed, same = alone(build, RUNS[0], start=from_stack[0])
    assert_same_fit(resumed, expected)
    assert_same_weights(same, model)
    from_single: list[Snapshot] = []
    alone(build, RUNS[0], keep=keeping(from_single))
    assert [len(snapshot.epochs) for snapshot in from_single] == list(range(1, EPOCHS))
    trunk = backbone()
    members = [member(build, RUNS[0], trunk, start=from_single[1]), member(build, RUNS[2], trunk)]
    ends = list(fit_stack(members, TRAIN, TEST, CPU))
    assert [index for index, _ in ends] == [0, 1]
    assert_same_fit(ends[0][1], expected)
    assert_same_weights(members[0].model, model)
    assert_same_fit(ends[1][1], alone(build, RUNS[2])[0])


def test_a_loss_that_is_not_finite_stops_its_run_alone() -> None:
    trunk = backbone()
    wild = (replace(SGD[1][0], lr=1e30), 0)
    events: list[Event] = []
    members = [member(ship, run, trunk) for run in (SGD[0], wild, SGD[2])]
    members[1] = replace(members[1], hooks=Hooks(Emitter("wild", events.append)))
    first, failed, last = together(members)
    assert isinstance(failed, ShipbenchError)
    assert "try a lower lr" in str(failed)
    assert all(isinstance(event, EpochDone) for event in events)
    assert len(events) < EPOCHS
    for end, one, run in ((first, members[0], SGD[0]), (last, members[2], SGD[2])):
        expected, model = alone(ship, run)
        assert_same_fit(end, expected)
        assert_same_weights(one.model, model)


def test_a_run_that_is_taken_over_leaves_the_others_alone() -> None:
    trunk = backbone()
    steps: list[int] = []

    def lose() -> None:
        steps.append(1)
        if len(steps) == 5:
            raise ShipbenchError("taken over")

    taken, kept = together([member(ship, RUNS[0], trunk, check=lose), member(ship, RUNS[1], trunk)])
    assert str(taken) == "taken over"
    assert len(steps) == 5
    assert_same_fit(kept, alone(ship, RUNS[1])[0])


def outcomes(*changes: dict[str, Any]) -> tuple[dict[int, Fit | ShipbenchError], list[nn.Module]]:
    """Train three members, each with ``changes``, without random masks: only they change a stack's shapes on a CPU."""
    trunk = load_backbone("test_vit", checkpoint="random", image_size=32)
    members = [replace(member(ship, run, trunk), **change) for run, change in zip(SGD, changes, strict=True)]
    return dict(fit_stack(members, TRAIN, TEST, CPU)), [one.model for one in members]


def test_a_run_has_the_same_bits_whatever_happens_to_the_others_of_its_stack() -> None:
    placeholder = {"placeholder": True}
    wild = {"recipe": replace(SGD[1][0], lr=1e30)}
    snapshots: list[Snapshot] = []
    ends, (_, _, expected) = outcomes({}, {}, {"hooks": Hooks(keep=keeping(snapshots))})
    assert set(ends) == {0, 1, 2}
    resumed = {"hooks": Hooks(start=snapshots[0])}
    for others, left in (
        ((placeholder, placeholder, {}), {2}),
        ((placeholder, wild, {}), {1, 2}),
        (({}, {}, resumed), {0, 1, 2}),
    ):
        ends, (*_, model) = outcomes(*others)
        assert set(ends) == left
        assert isinstance(ends[2], Fit)
        for name, value in weights(expected).items():
            assert torch.equal(weights(model)[name], value), name


def test_a_placeholder_is_not_trained() -> None:
    _, (model, _, _) = outcomes({"placeholder": True}, {}, {})
    untrained = built(ship, SGD[0][1], load_backbone("test_vit", checkpoint="random", image_size=32))
    assert all(torch.equal(weights(model)[name], value) for name, value in weights(untrained).items())


def test_a_step_without_enough_memory_is_for_the_caller_to_handle() -> None:
    trunk = backbone()

    def check(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > RECIPE.batch_size:
            raise torch.OutOfMemoryError("CUDA out of memory")

    trunk.patch_embed.register_forward_pre_hook(check)
    with pytest.raises(torch.OutOfMemoryError):
        together([member(ship, run, trunk) for run in RUNS])
