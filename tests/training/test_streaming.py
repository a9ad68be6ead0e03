"""Training sets are resident or streamed by a fixed rule, and the results are the same bits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from torch import Tensor, nn

from shipbench.backbones import Preprocessing, load_backbone
from shipbench.data.framing import Framing
from shipbench.data.types import Split
from shipbench.hardware.precision import ComputeContext
from shipbench.recipe import Recipe
from shipbench.tasks.catalogue import Augment
from shipbench.training import inputs as inputs_module
from shipbench.training.history import Fit
from shipbench.training.inputs import ImageInputs, Inputs, image_inputs
from shipbench.training.loop import Hooks, fit
from shipbench.training.prefetch import reading_ahead
from shipbench.training.snapshot import Snapshot, random_states
from shipbench.training.stacked import Member, fit_stack

CPU = ComputeContext(torch.device("cpu"), "fp32")
RECIPE = Recipe(epochs=3, batch_size=6, lr=0.01, warmup_epochs=1, eval_every=1, drop_last=False)
COUNT = 14


def split(tmp_path: Path, stored: int, side: int) -> Split:
    """Images in a memory map on the disk, stored at a size that may be smaller than the square they become."""
    rng = np.random.default_rng(0)
    file = tmp_path / f"{stored}.npy"
    np.save(file, rng.integers(0, 256, (COUNT, stored, stored, 3), dtype=np.uint8))
    return Split(np.load(file, mmap_mode="r"), rng.integers(0, 4, COUNT), Framing(side))


def inputs(tmp_path: Path, stored: int = 20, augment: Augment = "none", *, resident: bool = False) -> ImageInputs:
    preprocessing = Preprocessing(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    side = 32 if augment == "none" else 37
    return image_inputs(split(tmp_path, stored, side), preprocessing, CPU.device, resident=resident, augment=augment)


def vpt(trunk: Any = None) -> nn.Module:
    trunk = trunk or load_backbone("test_vit", checkpoint="random", image_size=32, drop_path=0.4)
    torch.manual_seed(0)
    return Vpt(trunk, 4, VptConfig(prompt_length=3, dropout=0.2), deep=True)


def trained(train: Inputs, seed: int = 0, **hooks: Any) -> tuple[Fit, dict[str, Tensor]]:
    model = vpt()
    done = fit(model, train, train, RECIPE, CPU, seed, Hooks(**hooks))
    return done, {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def assert_equal_bits(one: tuple[Fit, dict[str, Tensor]], other: tuple[Fit, dict[str, Tensor]]) -> None:
    assert [epoch.train_loss for epoch in one[0].epochs] == [epoch.train_loss for epoch in other[0].epochs]
    assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("augment", ["none", "flip-crop"])
def test_streamed_images_train_to_the_bits_of_resident_ones(tmp_path: Path, augment: Augment) -> None:
    streamed, resident = inputs(tmp_path, augment=augment), inputs(tmp_path, augment=augment, resident=True)
    assert streamed.images.shape[1] == 20
    assert resident.images.shape[1] == (32 if augment == "none" else 37)
    assert_equal_bits(trained(streamed), trained(resident))


def test_images_are_resident_if_they_take_a_small_enough_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = COUNT * 32 * 32 * 3
    for free, kept in ((16 * squares, 32), (16 * squares - 1, 20)):
        monkeypatch.setattr(inputs_module, "free_memory", lambda device, free=free: free)
        assert inputs(tmp_path, resident=True).images.shape[1] == kept


def test_images_that_are_squares_already_are_not_copied_on_the_cpu(tmp_path: Path) -> None:
    mapped = split(tmp_path, 32, 32)
    train = image_inputs(mapped, Preprocessing(32, (0,) * 3, (1,) * 3), CPU.device, resident=True)
    assert train.images.data_ptr() == mapped.pixels.ctypes.data


def test_an_augmented_run_that_is_resumed_repeats_its_crops(tmp_path: Path) -> None:
    train, snapshots = inputs(tmp_path, augment="flip-crop"), list[Snapshot]()
    whole = trained(train, keep=lambda take: snapshots.append(take()))
    resumed = trained(train, start=snapshots[0])
    assert_equal_bits(resumed, whole)
    assert_equal_bits(trained(train), whole)
    assert trained(train, seed=1)[0].epochs[0].train_loss != whole[0].epochs[0].train_loss


def test_the_runs_of_a_stack_see_the_crops_that_each_sees_alone(tmp_path: Path) -> None:
    train = inputs(tmp_path, augment="flip-crop")
    trunk = load_backbone("test_vit", checkpoint="random", image_size=32, drop_path=0.4)
    members = [Member(vpt(trunk), RECIPE, seed, random_states(CPU.device), Hooks()) for seed in (0, 5)]
    outcomes = dict(fit_stack(members, train, train, CPU))
    for index, member in enumerate(members):
        outcome, alone = outcomes[index], trained(train, seed=member.seed)[0]
        assert isinstance(outcome, Fit)
        losses = [epoch.train_loss for epoch in alone.epochs]
        assert [epoch.train_loss for epoch in outcome.epochs] == pytest.approx(losses, rel=1e-4)


def test_every_training_batch_is_read_ahead_in_its_order(tmp_path: Path) -> None:
    train, read = inputs(tmp_path, augment="flip-crop").for_epoch(0, 0), list[list[int]]()
    done = threading.Event()

    class Watched(ImageInputs):
        def read(self, indices: Tensor) -> Callable[[], Tensor]:
            read.append(indices.tolist())
            if len(read) == 3:
                done.set()
            return train.read(indices)

    watched = Watched(train.images, train.labels, train.mean, train.std)
    batches = list(torch.randperm(COUNT).split(5))
    with reading_ahead(watched, batches) as reader:
        first = reader.batch(batches[0])
        second = reader.batch(batches[1])
        # The third batch is read although nobody has asked for it.
        assert done.wait(30)
        part = reader.batch(batches[1][:2])
        third = reader.batch(batches[2])
    assert read == [batches[0].tolist(), batches[1].tolist(), batches[2].tolist(), batches[1][:2].tolist()]
    expected = [train.batch(batch) for batch in batches]
    assert torch.equal(torch.cat([first, second, third]), torch.cat(expected))
    assert torch.equal(part, expected[1][:2])


def test_what_reading_raises_reaches_the_training(tmp_path: Path) -> None:
    class Broken(ImageInputs):
        def read(self, indices: Tensor) -> Callable[[], Tensor]:
            raise OSError("Input/output error")

    train = inputs(tmp_path)
    broken = Broken(train.images, train.labels, train.mean, train.std)
    with pytest.raises(OSError, match="Input/output error"):
        fit(vpt(), broken, train, replace(RECIPE, epochs=1), CPU, 0)
