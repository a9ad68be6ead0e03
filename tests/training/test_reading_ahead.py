"""Prefetching from the disk: the same numbers, no exception lost, no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shipbench.backbones import Preprocessing
from shipbench.data.types import Split
from shipbench.hardware.precision import ComputeContext
from shipbench.recipe import Recipe
from shipbench.training.inputs import ImageInputs, Inputs, image_inputs
from shipbench.training.loop import evaluate, fit
from shipbench.training.micro_batches import MicroBatches, in_micro_batches

CPU = ComputeContext(torch.device("cpu"), "fp32")
COUNT = 23
PATIENCE = 30.0


@pytest.fixture
def streamed(tmp_path: Path) -> ImageInputs:
    """Images in a memory map on the disk, as the cache keeps them."""
    rng = np.random.default_rng(0)
    file = tmp_path / "images.npy"
    np.save(file, rng.integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8))
    split = Split(np.load(file, mmap_mode="r"), rng.integers(0, 4, COUNT))
    preprocessing = Preprocessing(8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    return image_inputs(split, preprocessing, CPU.device, resident=False)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 4))


@dataclass(frozen=True)
class Watched:
    """Inputs that report the indices of images before reading them."""

    inputs: Inputs
    on_read: Callable[[list[int]], None]

    @property
    def labels(self) -> Tensor:
        return self.inputs.labels

    @property
    def reads_ahead(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.inputs)

    def for_epoch(self, seed: int, epoch: int) -> Watched:
        return self

    def batch(self, indices: Tensor) -> Tensor:
        return self.read(indices)()

    def read(self, indices: Tensor) -> Callable[[], Tensor]:
        self.on_read(indices.tolist())
        return self.inputs.read(indices)


@dataclass
class SmallMemory:
    """Runs out of memory beyond ``fitting`` images."""

    fitting: int
    tried: list[int] = field(default_factory=list)

    def __call__(self, indices: list[int]) -> None:
        self.tried.append(len(indices))
        if len(indices) > self.fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_streamed_images_are_those_on_the_disk(streamed: ImageInputs) -> None:
    chosen = torch.tensor([5, 0, 22])
    pixels = streamed.images[chosen].permute(0, 3, 1, 2).float() / 255
    expected = (pixels - torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)) / torch.tensor([0.2, 0.3, 0.25]).view(
        1, 3, 1, 1
    )
    assert torch.equal(streamed.batch(chosen), expected)


@pytest.mark.parametrize("size", [1, 7, 23, 40])
def test_reading_ahead_changes_no_number(streamed: ImageInputs, size: int) -> None:
    model = classifier()
    batches = in_micro_batches(streamed, MicroBatches(size, "a test"), Tensor.clone)
    assert torch.equal(batches, streamed.batch(torch.arange(COUNT)))
    scores = evaluate(model, streamed, CPU, size)
    with torch.no_grad():
        logits = torch.cat([model(streamed.batch(chunk)) for chunk in torch.arange(COUNT).split(size)])
    assert torch.equal(scores.confidence, logits.softmax(1).amax(1))


def test_every_image_is_read_once(streamed: ImageInputs) -> None:
    indices: list[int] = []
    evaluate(classifier(), Watched(streamed, indices.extend), CPU, 5)
    assert indices == list(range(COUNT))


def test_the_next_images_are_read_while_the_model_computes(streamed: ImageInputs) -> None:
    last_is_read = threading.Event()
    model = classifier()
    # Of two batches, the second must be read before the first has passed the model, or the model waits in vain.
    model.register_forward_pre_hook(lambda *_: pytest.fail("not read") if not last_is_read.wait(PATIENCE) else None)
    watched = Watched(streamed, lambda indices: last_is_read.set() if COUNT - 1 in indices else None)
    evaluate(model, watched, CPU, 12)


def test_what_reading_raises_is_raised_by_the_evaluation(streamed: ImageInputs) -> None:
    def break_down(indices: list[int]) -> None:
        if 11 in indices:
            raise OSError("Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        evaluate(classifier(), Watched(streamed, break_down), CPU, 5)


def test_memory_that_runs_out_in_reading_means_fewer_images_at_a_time(streamed: ImageInputs) -> None:
    whole = evaluate(classifier(), streamed, CPU, 3)
    memory = SmallMemory(3)
    parts = evaluate(classifier(), Watched(streamed, memory), CPU, 12)
    assert torch.equal(parts.confidence, whole.confidence)
    assert max(memory.tried[4:]) == 3


def test_memory_that_runs_out_in_the_model_reads_the_same_images_again(streamed: ImageInputs) -> None:
    memory, indices = SmallMemory(6), list[int]()
    model = classifier()
    model.register_forward_pre_hook(lambda _, inputs: memory(list(range(len(inputs[0])))))
    scores = evaluate(model, Watched(streamed, indices.extend), CPU, 12)
    assert torch.equal(scores.confidence, evaluate(classifier(), streamed, CPU, 6).confidence)
    assert sorted(set(indices)) == list(range(COUNT))


def test_reading_ahead_goes_on_after_memory_ran_out(streamed: ImageInputs) -> None:
    memory, reads = SmallMemory(6), list[tuple[str, int]]()
    model = classifier()
    model.register_forward_pre_hook(lambda _, inputs: memory(list(range(len(inputs[0])))))
    watched = Watched(streamed, lambda indices: reads.append((threading.current_thread().name[:8], len(indices))))
    evaluate(model, watched, CPU, 12)
    assert reads[-4:] == [("prefetch", size) for size in (6, 6, 6, 5)]


class Trained(nn.Sequential):
    """A classifier that can be trained, and runs out of memory beyond ``memory`` images."""

    def __init__(self, memory: SmallMemory) -> None:
        super().__init__(classifier())
        self.memory = memory

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        self.memory(list(range(len(inputs))))
        return nn.functional.cross_entropy(self(inputs), labels)


def test_epochs_after_memory_ran_out_read_the_parts_of_batches_ahead(streamed: ImageInputs) -> None:
    reads: list[tuple[str, int]] = []
    watched = Watched(streamed, lambda indices: reads.append((threading.current_thread().name[:8], len(indices))))
    recipe = Recipe(epochs=2, batch_size=12, eval_every=0, warmup_epochs=0, drop_last=False)
    fit(Trained(SmallMemory(6)), watched, streamed, recipe, CPU, 0)
    assert reads[-4:] == [("prefetch", size) for size in (6, 6, 6, 5)]


def test_an_interrupted_evaluation_ends(streamed: ImageInputs) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    model = classifier()
    model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, streamed, CPU, 5)
