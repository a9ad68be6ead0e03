"""Recorded steps and evaluations equal those that are not recorded, bit for bit.

Steps are recorded as CUDA graphs on a CUDA device. Elsewhere, they are recorded on tapes, which replay the recorded
operations on the same memory and refuse whatever a CUDA graph cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from shipbench.errors import ShipbenchError
from shipbench.events import Emitter, Event, Note
from shipbench.hardware.precision import ComputeContext
from shipbench.training import captured, loop, stacked
from shipbench.training.captured import NotRecordedError
from shipbench.training.history import Fit
from shipbench.training.inputs import FeatureInputs, Inputs
from shipbench.training.loop import Hooks
from shipbench.training.snapshot import Snapshot, random_states
from shipbench.training.stacked import Member, fit_stack
from tests.cuda.builders import ADAPTERS, MODELS, RECIPE, SIZE, assert_identical, backbone, images, train, weights

pytestmark = pytest.mark.usefixtures("recording")
OFF = replace(RECIPE, capture="off")


@pytest.fixture(autouse=True)
def small_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations in batches of 8, so that 25 images have three full batches and a partial one."""
    monkeypatch.setattr(loop, "inference_batch", lambda device: 8)
    # A stack of three runs divides it among them.
    monkeypatch.setattr(stacked, "inference_batch", lambda device: 24)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("name", list(MODELS))
def test_recorded_trainings_equal_others(name: str, optimizer: Any, compute: ComputeContext) -> None:
    recorded = train(name, replace(RECIPE, optimizer=optimizer), compute)
    expected = train(name, replace(OFF, optimizer=optimizer), compute)
    assert (recorded[0].captured, expected[0].captured) == (True, False)
    assert_identical(recorded, expected)


@pytest.mark.parametrize("name", [*ADAPTERS, "vpt-shallow"])
def test_other_recorded_methods_draw_the_masks_that_others_draw(name: str, device: torch.device) -> None:
    compute = ComputeContext(device, "fp32")
    recorded, expected = (train(name, replace(recipe, epochs=1, warmup_epochs=0), compute) for recipe in (RECIPE, OFF))
    assert (recorded[0].captured, expected[0].captured) == (True, False)
    assert_identical(recorded, expected)


def test_streamed_images_are_gathered_before_a_replay(compute: ComputeContext) -> None:
    streamed = images(14, compute.device, resident=False)
    recorded = train("ship", RECIPE, compute, inputs=streamed)
    assert recorded[0].captured
    assert_identical(recorded, train("ship", OFF, compute, inputs=streamed))


@dataclass(frozen=True)
class Drifting(FeatureInputs):
    """Images on the device that every run sees otherwise in every epoch, as resident ones that are augmented."""

    def for_epoch(self, seed: int, epoch: int) -> FeatureInputs:
        return FeatureInputs(self.features * (1 + 0.1 * (seed + epoch + 1)), self.labels)


SHORT = [replace(recipe, epochs=2) for recipe in (RECIPE, OFF)]


def drifting(device: torch.device) -> Drifting:
    pixels = torch.randn(14, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(14))
    return Drifting(pixels.to(device), images(14, device).labels)


def test_images_of_an_epoch_are_gathered_before_a_replay(device: torch.device) -> None:
    compute = ComputeContext(device, "fp32")
    recorded, expected = (train("ship", recipe, compute, inputs=drifting(device)) for recipe in SHORT)
    assert recorded[0].captured
    assert_identical(recorded, expected)


def test_a_stack_gathers_the_images_that_each_run_sees_in_an_epoch(device: torch.device) -> None:
    compute = ComputeContext(device, "fp32")
    (recorded, models), (expected, same) = (stack(recipe, compute, inputs=drifting(device)) for recipe in SHORT)
    for run, model in enumerate(models):
        assert recorded[run].captured
        assert_identical((recorded[run], model), (expected[run], same[run]))


# SHIP draws its masks on the host, full fine-tuning on the device.
@pytest.mark.parametrize(("name", "first"), [("ship", RECIPE), ("full", RECIPE), ("full", OFF)])
def test_a_snapshot_continues_recorded_and_not(name: str, first: Any, compute: ComputeContext) -> None:
    taken: list[Snapshot] = []
    whole = train(name, first, compute, Hooks(keep=lambda take: taken.append(take())))
    for recipe in (RECIPE, OFF):
        rest, model = train(name, recipe, compute, Hooks(start=taken[0]))
        assert_identical((Fit(rest.epochs[1:]), model), (Fit(whole[0].epochs[1:]), whole[1]))


def stack(
    recipe: Any, compute: ComputeContext, check: Callable[[], None] | None = None, *, inputs: Inputs | None = None
) -> tuple[Any, list[nn.Module]]:
    """Three runs of a stack, of which the second calls ``check`` before every step."""
    trunk = backbone(compute.device)
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = MODELS["ship"](trunk).to(compute.device)
        hooks = Hooks(check=check if seed == 1 else None)
        members.append(Member(model, recipe, seed, random_states(compute.device), hooks))
    evaluation = images(25, compute.device, resident=False)
    outcomes = dict(fit_stack(members, inputs or images(14, compute.device), evaluation, compute))
    return outcomes, [member.model for member in members]


def test_recorded_stacks_equal_others(compute: ComputeContext) -> None:
    (recorded, models), (expected, same) = stack(RECIPE, compute), stack(OFF, compute)
    for run, model in enumerate(models):
        assert (recorded[run].captured, expected[run].captured) == (True, False)
        assert_identical((recorded[run], model), (expected[run], same[run]))


def test_a_stack_that_loses_a_run_continues(compute: ComputeContext) -> None:
    def stop_in_step(number: int) -> Callable[[], None]:
        steps = iter(range(100))

        def check() -> None:
            if next(steps) == number:
                raise ShipbenchError("taken over")

        return check

    # The first step of the second epoch: it is a replay until then, and recorded again for the other runs.
    (recorded, models), (expected, same) = (stack(recipe, compute, stop_in_step(4)) for recipe in (RECIPE, OFF))
    assert str(recorded[1]) == str(expected[1]) == "taken over"
    # The weights of the run that has ended stay as they were.
    lost = weights(models[1])
    assert all(torch.equal(value, lost[name]) for name, value in weights(same[1]).items())
    for run in (0, 2):
        assert recorded[run].captured
        assert_identical((recorded[run], models[run]), (expected[run], same[run]))


def test_a_stack_that_cannot_be_recorded_draws_the_masks_that_others_draw(device: torch.device) -> None:
    def refuse(*_: object) -> None:
        raise NotRecordedError("no graph holds it")

    compute = ComputeContext(device, "fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured, "recorded", refuse)
        computed, models = stack(SHORT[0], compute)
    expected, same = stack(SHORT[1], compute)
    for run, model in enumerate(models):
        assert not computed[run].captured
        assert_identical((computed[run], model), (expected[run], same[run]))


def test_a_run_that_resumes_with_parts_of_batches_is_not_recorded_in_whole_ones(device: torch.device) -> None:
    compute, taken = ComputeContext(device, "fp32"), list[Snapshot]()
    train("ship", SHORT[1], compute, Hooks(keep=lambda take: taken.append(take())))
    start = Hooks(start=replace(taken[0], micro_batches=(3, 8)))
    resumed, expected = (train("ship", recipe, compute, start) for recipe in SHORT)
    assert (resumed[0].captured, resumed[0].micro_batch) == (False, 3)
    assert_identical(resumed, expected)


def test_memory_that_runs_out_in_the_first_step_means_smaller_batches(compute: ComputeContext) -> None:
    def run(recipe: Any) -> tuple[tuple[Fit, nn.Module], list[str]]:
        events: list[Event] = []
        hooks = Hooks(Emitter("a1", events.append))
        original = loop.Trainer._train

        def limited(trainer: loop.Trainer, epoch: int) -> Any:
            handle = trainer.model.backbone.patch_embed.register_forward_pre_hook(check)  # type: ignore[union-attr]
            report = original(trainer, epoch)
            handle.remove()
            return report

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop.Trainer, "_train", limited)
            return train("ship", recipe, compute, hooks), [event.text for event in events if isinstance(event, Note)]

    def check(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    (recorded, notes), (expected, _) = run(RECIPE), run(OFF)
    assert recorded[0].micro_batch == expected[0].micro_batch == 3
    assert not recorded[0].captured
    assert notes[0] == "training steps are not recorded: memory ran out while the first one was recorded"
    assert_identical(recorded, expected)
