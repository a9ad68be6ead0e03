"""What recordings refuse, what they leave behind, and when steps are not recorded."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shipbench_baselines.full import FullModel
from shipbench_baselines.linear import Readout
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shipbench import load_results
from shipbench.backbones import load_backbone
from shipbench.bench.options import EndToEndOptions
from shipbench.bench.synthetic_task import TASK, write_images
from shipbench.errors import ShipbenchError
from shipbench.events import Emitter, Event, Note
from shipbench.hardware.precision import ComputeContext
from shipbench.recipe import Recipe
from shipbench.training.captured import CapturedForward, NotRecordedError, leaving_no_trace, recorded, recorder_of
from shipbench.training.captured_run import CapturedRun
from shipbench.training.captured_stack import CapturedStack
from shipbench.training.history import Fit
from shipbench.training.inputs import FeatureInputs
from shipbench.training.loop import Hooks, Trainer, fit
from shipbench.training.optimisers import make_optimizer
from shipbench.training.snapshot import Snapshot, random_states
from shipbench.training.stacked import Member, fit_stack
from tests.conftest import Outcome
from tests.cuda.builders import (
    ADAPTERS,
    CLASSES,
    RECIPE,
    assert_identical,
    backbone,
    build,
    features,
    images,
    ship_model,
    train,
)
from tests.tapes import Tapes
from tests.training.models import vpt as dropping_vpt
from tests.training.test_waiting import META, SIZE, OnMeta, model_on_meta
from tests.training.test_waiting import images as meta_images

CPU = ComputeContext(torch.device("cpu"), "fp32")
OFF = replace(RECIPE, capture="off")


def features_of_images(count: int) -> FeatureInputs:
    """Random images that lie on the device as they enter a model."""
    return FeatureInputs(features(count, CPU.device).features.view(count, 3, SIZE, SIZE), torch.arange(count) % CLASSES)


def replays(work: Callable[[], None]) -> None:
    Tapes(CPU.device).record(work).replay()


def test_a_tape_runs_the_recorded_operations_on_the_same_memory() -> None:
    values, total = torch.arange(4.0), torch.zeros(())
    calls: list[int] = []

    def work() -> None:
        calls.append(len(calls))
        total.add_((values[1:] * 2).relu().sum() + len(calls))

    tape = Tapes(CPU.device).record(work)
    values.neg_()
    tape.replay()
    # The replay reads the new values, but what Python computed is that of the recording.
    assert total.item() == (12 + 1) + (0 + 1)
    assert calls == [0]


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda: torch.rand(2, generator=torch.Generator()), "draws from a generator"),
        (lambda: torch.ones(3).sum().item(), "decides by values"),
        (lambda: torch.ones(3).nonzero(), "decides by values"),
        (lambda: torch.ones(3)[torch.tensor([True, False, True])], "decides by values"),
    ],
)
def test_a_tape_refuses_what_no_graph_can_hold(work: Callable[[], None], reason: str) -> None:
    with pytest.raises(ShipbenchError, match=reason):
        replays(work)
    with pytest.raises(NotRecordedError, match=reason):
        recorded(Tapes(CPU.device), work)


def test_indexing_by_numbers_and_attention_without_dropout_can_be_recorded() -> None:
    rows = torch.randn(4, 2, 3, 5)
    replays(lambda: rows[torch.tensor([0, 2])].sum())
    replays(lambda: F.scaled_dot_product_attention(rows, rows, rows).sum())


def test_memory_that_runs_out_is_found_behind_the_error_that_ends_a_recording() -> None:
    class Failing(Tapes):
        def record(self, work: Callable[[], object]) -> Any:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")

    with pytest.raises(torch.OutOfMemoryError):
        recorded(Failing(CPU.device), lambda: None)


@pytest.mark.usefixtures("tapes")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_warm_up_leaves_no_trace(optimizer: Any, steps_before: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    update = make_optimizer(model, Recipe(optimizer=optimizer, lr=0.1))

    def step() -> None:
        update.zero_grad(set_to_none=True)
        model(torch.randn(5, 3)).square().sum().backward()
        update.step()

    def state() -> list[Tensor]:
        optimiser = [value for entry in update.state.values() for value in entry.values() if value is not None]
        return [tensor.detach().clone() for tensor in [*model.state_dict().values(), *optimiser, torch.get_rng_state()]]

    for _ in range(steps_before):
        step()
    before, addresses = state(), [p.data_ptr() for p in model.parameters()]
    with leaving_no_trace([model], [update], []):
        step()
    assert [p.data_ptr() for p in model.parameters()] == addresses
    after = state()
    if not steps_before:
        # The optimiser's state is new, and as it is at the start.
        created = after[len(before) - 1 : -1]
        assert created
        assert not any(bool(tensor.any()) for tensor in created)
        after = [*after[: len(before) - 1], after[-1]]
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def notes_of(run: Callable[[Hooks], tuple[Fit, nn.Module]]) -> tuple[tuple[Fit, nn.Module], list[str]]:
    events: list[Event] = []
    outcome = run(Hooks(Emitter("a1", events.append)))
    return outcome, [event.text for event in events if isinstance(event, Note)]


class Reading(nn.Module):
    """A model that claims to be static but reads a value back, in training or always."""

    draws_on_device, stochastic_depth = False, None

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.head, self.always = nn.Linear(4, 3), always

    def forward(self, inputs: Tensor) -> Tensor:
        shift = float(inputs.mean()) if self.training or self.always else 0.0
        return self.head(inputs + shift)

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self(inputs), labels)


@pytest.mark.usefixtures("tapes")
@pytest.mark.parametrize("always", [False, True])
def test_a_step_that_cannot_be_recorded_is_computed(always: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.training.loop.inference_batch", lambda device: 4)
    generator = torch.Generator().manual_seed(0)
    inputs = FeatureInputs(torch.randn(12, 4, generator=generator), torch.arange(12) % 3)

    def run(recipe: Recipe, hooks: Hooks) -> tuple[Fit, nn.Module]:
        torch.manual_seed(0)
        model = Reading(always=always)
        return fit(model, inputs, inputs, recipe, CPU, 0, hooks), model

    outcome, notes = notes_of(lambda hooks: run(RECIPE, hooks))
    assert not outcome[0].captured
    assert [note.partition(":")[0] for note in notes] == [
        "training steps are not recorded",
        *(["evaluation is not recorded"] if always else []),
    ]
    assert_identical(outcome, run(OFF, Hooks()))


@pytest.mark.usefixtures("tapes")
def test_a_model_that_keeps_biases_between_evaluations_is_not_recorded() -> None:
    for name, recordable in (("levit_128s", False), ("test_vit", True)):
        model = FullModel(load_backbone(name, checkpoint="random"), CLASSES)
        assert (recorder_of([model], "auto", CPU) is not None) is recordable


@pytest.mark.usefixtures("tapes")
def test_a_batch_that_lacks_the_memory_of_the_recording_is_computed_whole() -> None:
    class Scarce(Readout):
        """A readout whose last batch of an epoch does not fit beside a recorded step."""

        recorded = False

        def loss(self, features: Tensor, labels: Tensor) -> Tensor:
            if len(features) < 6 and self.recorded:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().loss(features, labels)

    recipe = replace(RECIPE, drop_last=False)

    def run(recipe: Recipe, hooks: Hooks) -> tuple[Fit, nn.Module]:
        torch.manual_seed(0)
        model = Scarce(3 * SIZE * SIZE, CLASSES)
        inputs = (features(14, CPU.device), features(9, CPU.device))
        trainer = Trainer(model, *inputs, recipe, CPU, 0, hooks)
        forget = trainer._forget_recording

        def watched() -> None:
            forget()
            assert trainer._score.recorder is None
            model.recorded = False

        trainer._forget_recording = watched  # type: ignore[method-assign]
        model.recorded = recipe.capture == "auto"
        epochs = [trainer.epoch(epoch) for epoch in range(recipe.epochs)]
        return Fit(epochs, trainer.micro_batch, trainer.captured), model

    outcome, notes = notes_of(lambda hooks: run(recipe, hooks))
    assert notes == ["out of memory beside the recorded training step: continuing without recording"]
    assert (outcome[0].micro_batch, outcome[0].captured) == (0, True)
    assert_identical(outcome, run(replace(recipe, capture="off"), Hooks()))


@pytest.mark.usefixtures("tapes")
def test_a_model_that_follows_steps_is_not_recorded() -> None:
    class Following(Readout):
        gradients: tuple[bool, ...] = ()
        followed: tuple[tuple[int, int], ...] = ()

        def after_step(self, step: int, steps: int) -> None:
            self.gradients += (self.head.weight.grad is not None,)
            self.followed += ((step, steps),)

    model, taken = Following(3 * SIZE * SIZE, CLASSES), list[Snapshot]()
    inputs, hooks = (features(14, CPU.device), features(9, CPU.device)), Hooks(keep=lambda take: taken.append(take()))
    assert not fit(model, *inputs, RECIPE, CPU, 0, hooks).captured
    assert model.gradients == (True,) * 9
    assert model.followed == tuple((step, 9) for step in range(9))
    resumed = Following(3 * SIZE * SIZE, CLASSES)
    fit(resumed, *inputs, RECIPE, CPU, 0, Hooks(start=taken[1]))
    assert resumed.followed == ((6, 9), (7, 9), (8, 9))


@pytest.mark.usefixtures("tapes")
def test_prompt_dropout_is_recorded_but_not_in_a_stack() -> None:
    def run(recipe: Recipe) -> tuple[Fit, nn.Module]:
        torch.manual_seed(0)
        model = dropping_vpt(backbone(CPU.device))
        return fit(model, images(14, CPU.device), images(9, CPU.device), recipe, CPU, 0), model

    recorded = run(RECIPE)
    assert recorded[0].captured
    assert_identical(recorded, run(OFF))
    trunk, state = backbone(CPU.device), random_states(CPU.device)
    members = [Member(dropping_vpt(trunk), replace(RECIPE, epochs=2), seed, state, Hooks()) for seed in range(2)]
    outcomes = dict(fit_stack(members, images(14, CPU.device), images(9, CPU.device), CPU))
    assert [outcome.captured for outcome in outcomes.values() if isinstance(outcome, Fit)] == [False, False]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("tapes")
@pytest.mark.parametrize("recipe", [RECIPE, OFF], ids=["recorded", "computed"])
@pytest.mark.parametrize("runs", [1, 2])
def test_a_training_that_has_ended_keeps_neither_model_nor_images(runs: int, recipe: Recipe) -> None:
    trunk, inputs = backbone(CPU.device), images(14, CPU.device)
    models = [ship_model(trunk) for _ in range(runs)]
    kept = [weakref.ref(value) for value in (*models, inputs)]
    with no_garbage_collection():
        if runs == 1:
            outcomes: list[Any] = [fit(models[0], inputs, inputs, recipe, CPU, 0)]
        else:
            state = random_states(CPU.device)
            members = [Member(model, recipe, seed, state, Hooks()) for seed, model in enumerate(models)]
            outcomes = list(dict(fit_stack(members, inputs, inputs, CPU)).values())
            del members
        del models, inputs
        assert all(reference() is None for reference in kept)
    assert [outcome.captured for outcome in outcomes] == [recipe is RECIPE] * runs


@pytest.mark.usefixtures("tapes")
def test_a_stack_waits_for_its_replays_before_it_drops_their_recording() -> None:
    recordings, at_waits = list[weakref.ref[Any]](), list[list[bool]]()

    class Watched(Tapes):
        def record(self, work: Callable[[], object]) -> Any:
            recording = super().record(work)
            recordings.append(weakref.ref(recording))
            return recording

    class Waiting(ComputeContext):
        def wait(self) -> None:
            at_waits.append([recording() is not None for recording in recordings])

    trunk, inputs = backbone(CPU.device), features_of_images(12)
    models: list[Any] = [ship_model(trunk).train() for _ in range(2)]
    optimizers = [make_optimizer(model, RECIPE) for model in models]
    stack = CapturedStack(models, optimizers, inputs, Waiting(CPU.device, "fp32"), 6, Watched(CPU.device))
    batches = torch.arange(12).split(6)
    with no_garbage_collection():
        for active in ((0, 1), (0, 1), (1,)):
            factors = [model.stochastic_depth.draw(6) for model in models]
            stack.take(active, [inputs] * 2, batches, factors)
    # A device may still replay the recording of both runs when the second one is recorded alone.
    assert at_waits == [[], [True]]
    assert [recording() is not None for recording in recordings] == [False, True]


@pytest.mark.usefixtures("tapes")
@pytest.mark.parametrize("first", ["placeholder", "ended"])
def test_notes_of_a_stack_are_those_of_a_run_in_training(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> Tensor:
        raise NotRecordedError("no graph holds it")

    def end() -> None:
        raise ShipbenchError("taken over")

    def check(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not members[0].model.training and len(inputs[0]) > 7:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CapturedStack, "take", refuse)
    events: list[Event] = []
    hooks = [Hooks(Emitter(name, events.append)) for name in ("first", "second")]
    trunk, state = backbone(CPU.device), random_states(CPU.device)
    trunk.patch_embed.register_forward_pre_hook(check)
    members = [Member(ship_model(trunk), replace(RECIPE, epochs=2), seed, state, hooks[seed]) for seed in range(2)]
    if first == "placeholder":
        members[0] = replace(members[0], placeholder=True)
    else:
        members[0] = replace(members[0], hooks=replace(hooks[0], check=end))
    dict(fit_stack(members, images(14, CPU.device), images(9, CPU.device), CPU))
    assert [event for event in events if isinstance(event, Note)] == [
        Note("second", "training steps are not recorded: no graph holds it"),
        Note("second", "out of memory: evaluation continues with 5 images at a time instead of 9"),
    ]


def test_nothing_is_recorded_on_the_cpu() -> None:
    assert not train("ship", RECIPE, CPU)[0].captured


def test_a_batch_is_recorded_when_its_shape_comes_again() -> None:
    calls: list[int] = []
    weight = torch.tensor(2.0)

    def function(batch: Tensor) -> Tensor:
        calls.append(len(batch))
        return batch * weight

    scores = CapturedForward(function, Tapes(CPU.device), lambda text: pytest.fail(text))
    batches = [torch.full((size,), float(size)) for size in (3, 3, 3, 2)]
    with torch.no_grad():
        outputs = [scores(batch) for batch in batches]
        weight.fill_(5.0)
        later = scores(batches[0])
    assert [output.tolist() for output in outputs] == [[6.0] * 3] * 3 + [[4.0] * 2]
    assert later.tolist() == [15.0] * 3
    assert calls == [3, 3, 2]


class OnlyOnTheDevice(TorchDispatchMode):
    """Refuses operations on tensors of the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            assert not isinstance(leaf, Tensor) or leaf.device == META, f"{func} on a tensor of the host"
        return result


class NoOptimizer:
    """An optimiser that updates nothing: fused ones do not exist on the meta device."""

    def zero_grad(self, set_to_none: bool) -> None:
        """Leave the gradients."""

    def step(self) -> None:
        """Leave the weights."""


BUILDERS = {name: partial(build, name) for name in ("ship", "full", *ADAPTERS)} | {"vpt with dropout": dropping_vpt}


@pytest.mark.parametrize("name", list(BUILDERS))
def test_a_recorded_step_touches_nothing_on_the_host(name: str) -> None:
    model, inputs = model_on_meta(BUILDERS[name]).train(), meta_images(30, META)
    assert inputs.images.shape[1] == SIZE
    run = CapturedRun(model, NoOptimizer(), inputs, OnMeta(META, "fp32"), 6, Tapes(META))  # type: ignore[arg-type]
    with OnlyOnTheDevice():
        losses = run._step()
    assert losses.shape == (1,)


@pytest.mark.parametrize("name", ["vpt-deep", "full"])
def test_a_recorded_step_over_rotary_positions_touches_nothing_on_the_host(name: str) -> None:
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    trunk = load_backbone("vit_small_patch16_dinov3", checkpoint="random", image_size=SIZE, architecture=sizes)
    model, inputs = build(name, trunk).to(META).train(), meta_images(30, META)
    run = CapturedRun(model, NoOptimizer(), inputs, OnMeta(META, "fp32"), 6, Tapes(META))  # type: ignore[arg-type]
    with OnlyOnTheDevice():
        assert run._step().shape == (1,)


def test_a_recorded_step_of_a_stack_touches_nothing_on_the_host() -> None:
    first, inputs = model_on_meta(ship_model).train(), meta_images(30, META)
    models = [first, copy.deepcopy(first, {id(first.backbone): first.backbone})]
    compute, optimizers = OnMeta(META, "fp32"), [NoOptimizer(), NoOptimizer()]
    stack = CapturedStack(models, optimizers, inputs, compute, 6, Tapes(META))  # type: ignore[arg-type]
    with OnlyOnTheDevice():
        losses = stack._step()
    assert losses.shape == (2,)


@pytest.mark.usefixtures("tapes")
def test_capture_is_recorded_but_is_no_part_of_a_run_id(
    shipbench: Callable[..., Outcome], tmp_path: Path, cache: Path
) -> None:
    results = tmp_path / "results"
    write_images(tmp_path / "data" / TASK, EndToEndOptions("test_vit", train_images=20, test_images=10))
    line = ("run", "--method", "vpt-deep", "--tasks", TASK, "--epochs", 2, "--device", "cpu", "--results", results)
    line += ("--data", tmp_path / "data", "--backbone", "test_vit", "--checkpoint", "random")
    line += ("--set", "image_size=32", "--set", "batch_size=8")
    assert shipbench(*line).code == 0
    (record,) = load_results(results).to_dict("records")
    assert record["captured"] == 1
    assert "cfg.capture" not in record
    again = shipbench(*line, "--set", "capture=off", "--force")
    assert again.code == 0, again.err
    (off,) = load_results(results).to_dict("records")
    assert (off["run_id"], off["captured"]) == (record["run_id"], 0)
    assert (off["train_loss"], off["final_test_acc"]) == (record["train_loss"], record["final_test_acc"])
    wrong = shipbench(*line, "--set", "capture=always")
    assert wrong.code == 2
    assert "capture" in wrong.err
