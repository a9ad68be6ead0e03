"""When a device runs out of memory: the same results from fewer images at a time, and a clear error at none."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shipbench_baselines.linear import Readout
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt_prompts import VptPrompts
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shipbench.backbones import load_backbone
from shipbench.errors import ShipbenchError
from shipbench.events import Emitter, Event, Note
from shipbench.hardware.precision import ComputeContext
from shipbench.methods.ship import affinity_matrix
from shipbench.methods.ship.hierarchy import affinity_deviation
from shipbench.recipe import Recipe
from shipbench.runs.features import block_features
from shipbench.training.captured import CapturedForward
from shipbench.training.history import Fit
from shipbench.training.inputs import FeatureInputs
from shipbench.training.loop import Hooks, evaluate, fit
from shipbench.training.micro_batches import MicroBatches, PartOfBatch, in_micro_batches
from shipbench.training.stacked import _evaluate
from tests.training.models import MODELS, images

CPU = ComputeContext(torch.device("cpu"), "fp32")
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.80 GB, max allowed: 9.07 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    MemoryError(),
]


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def test_an_evaluation_keeps_the_logits_of_one_batch() -> None:
    count, batch, classes = 40, 8, 100
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    inputs = FeatureInputs(torch.randn(count, 3, generator=generator), torch.arange(count) % classes)
    readout = Readout(3, classes)
    with torch.no_grad():
        logits = readout(inputs.features)
    with Largest() as alone:
        evaluation = evaluate(readout, inputs, CPU, batch)
    assert alone.elements == batch * classes
    torch.testing.assert_close(evaluation.loss, float(F.cross_entropy(logits, inputs.labels)))
    assert torch.equal(evaluation.predicted, logits.argmax(dim=1))

    def both(features: Tensor) -> Tensor:
        return torch.stack([readout(features), readout(-features)], dim=1)

    with Largest() as stacked:
        score = CapturedForward(both, None, lambda text: pytest.fail(text))
        first, second = _evaluate([readout, readout], inputs, score, MicroBatches(batch, "a test"))
    assert stacked.elements == 2 * batch * classes
    assert torch.equal(first.predicted, evaluation.predicted)
    assert torch.equal(second.predicted, readout(-inputs.features).argmax(dim=1))


@contextmanager
def memory_for(images: int, model: nn.Module, error: Exception = OUT_OF_MEMORY[0]) -> Iterator[list[int]]:
    """Let the patch embedding raise ``error`` beyond ``images`` images; yield the batch sizes that were tried."""
    tried: list[int] = []

    def check(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tried.append(len(inputs[0]))
        if len(inputs[0]) > images:
            raise error

    handle = model.backbone.patch_embed.register_forward_pre_hook(check)
    yield tried
    handle.remove()


def trained(
    build: Callable[[Any], nn.Module], fitting: int, error: Exception = OUT_OF_MEMORY[0]
) -> tuple[Fit, dict[str, Tensor], list[str], list[int]]:
    torch.manual_seed(0)
    model = build(load_backbone("test_vit", checkpoint="random", image_size=32, drop_path=0.4))
    events: list[Event] = []
    # SGD preserves the size of a difference between gradients; AdamW's first steps would preserve only its sign.
    recipe = Recipe(epochs=3, batch_size=6, optimizer="sgd", lr=0.05, warmup_epochs=0, eval_every=1)
    with memory_for(fitting, model, error) as tried:
        done = fit(model, images(12), images(9), recipe, CPU, 0, Hooks(Emitter("a1", events.append)))
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return done, weights, [event.text for event in events if isinstance(event, Note)], tried


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("fitting", [4, 1])
def test_parts_of_a_batch_train_as_the_whole_one(name: str, fitting: int) -> None:
    whole, weights, no_notes, _ = trained(MODELS[name], 100)
    parts, same, notes, _ = trained(MODELS[name], fitting)
    assert whole.micro_batch == 0
    assert not no_notes
    assert parts.micro_batch == {4: 3, 1: 1}[fitting]
    assert "out of memory: training continues with 3 images at a time instead of 6" in notes
    for name_, value in weights.items():
        torch.testing.assert_close(same[name_], value, rtol=1e-4, atol=1e-5)
    for a, b in zip(whole.epochs, parts.epochs, strict=True):
        assert b.train_loss == pytest.approx(a.train_loss, rel=1e-4)
        assert a.evaluation is not None
        assert b.evaluation is not None
        torch.testing.assert_close(b.evaluation.confidence, a.evaluation.confidence, rtol=1e-4, atol=1e-5)


class Layouts(TorchDispatchMode):
    """Notes the strides of every tensor of six images."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.strides: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)]
        self.strides |= {leaf.stride() for leaf in leaves if leaf.shape == (6, 3)}
        return result


@pytest.mark.parametrize("values", [torch.ones(6, 3), torch.ones(1, 3)], ids=["a batch", "expanded from one image"])
def test_a_part_draws_dropout_in_the_layout_of_the_whole_batch(values: Tensor) -> None:
    # CUDA numbers the elements of an expanded tensor, as VPT's prompts are, in another order than those of a batch.
    with Layouts() as whole:
        F.dropout(values.expand(6, -1), 0.5)
    with Layouts() as part, PartOfBatch(2, 2, 6):
        F.dropout(values[:2].expand(2, -1), 0.5)
    assert part.strides == whole.strides


def test_a_part_has_the_noise_of_its_images_in_the_whole_batch() -> None:
    def draw(count: int) -> Tensor:
        torch.manual_seed(0)
        return torch.randn_like(torch.ones(count, 3, dtype=torch.float64))

    whole = draw(6)
    for start in (0, 2, 4):
        with PartOfBatch(start, 2, 6):
            assert torch.equal(draw(2), whole[start : start + 2])


def test_prompts_of_one_image_are_expanded_as_those_of_a_batch() -> None:
    strides: list[int] = []
    vit = load_backbone("test_vit", checkpoint="random", image_size=32)
    prompts = VptPrompts(vit, VptConfig(prompt_length=3, dropout=0.2), deep=False)
    prompts.dropout.register_forward_pre_hook(lambda _, inputs: strides.append(inputs[0].stride(0)))
    assert [len(prompts.fresh(vit, 0, count)) for count in (6, 2, 1)] == [6, 2, 1]
    assert strides == [0, 0, 0]


def test_a_smaller_size_is_remembered() -> None:
    *_, tried = trained(MODELS["full"], 3)
    assert tried[:3] == [6, 3, 3]
    assert [size for size in tried if size > 3] == [6, 9, 5]


@pytest.mark.parametrize("error", OUT_OF_MEMORY[1:], ids=lambda error: str(error)[:20])
def test_every_allocator_and_library_may_run_out_of_memory(error: Exception) -> None:
    done, *_ = trained(MODELS["vpt-deep"], 4, error)
    assert done.micro_batch == 3


def test_another_error_is_not_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="the sizes do not match"):
        trained(MODELS["vpt-deep"], 4, RuntimeError("the sizes do not match"))


def test_one_image_that_does_not_fit_fails_the_run() -> None:
    with pytest.raises(ShipbenchError, match="out of memory in training: not even one image"):
        trained(MODELS["ship"], 0)


def test_features_are_computed_in_smaller_pieces() -> None:
    torch.manual_seed(0)
    model = MODELS["full"](load_backbone("test_vit", checkpoint="random", image_size=32))
    whole = block_features(model.backbone, images(9), "cls")
    events: list[Event] = []
    with memory_for(2, model):
        pieces = block_features(model.backbone, images(9), "cls", emitter=Emitter("a1", events.append))
    torch.testing.assert_close(pieces, whole)
    assert events


def test_what_a_batch_yields_is_moved_before_the_next_one_is_computed() -> None:
    parts: list[weakref.ref[Tensor]] = []

    def compute(batch: Tensor) -> Tensor:
        assert not any(part() is not None for part in parts)
        part = batch.double()
        parts.append(weakref.ref(part))
        return part

    features = torch.arange(10).unsqueeze(1)
    inputs = FeatureInputs(features, torch.zeros(10))
    assert torch.equal(in_micro_batches(inputs, MicroBatches(3, "a test"), compute), features.double())
    assert len(parts) == 4


@pytest.mark.parametrize("count", [2, 5000])
def test_the_affinity_of_few_images_is_one_sum(count: int) -> None:
    features = torch.randn(count, 3, 16, generator=torch.Generator().manual_seed(0))
    unit = F.normalize(features, dim=-1)
    assert torch.equal(affinity_matrix(features), torch.einsum("nld,nmd->lm", unit, unit) / count)
    assert torch.equal(affinity_deviation(features), (unit @ unit.transpose(1, 2)).std(dim=0, correction=1))


def test_the_affinity_of_many_images_needs_no_copy_of_their_features() -> None:
    features = torch.randn(70_000, 3, 16, generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        affinity, deviation = affinity_matrix(features), affinity_deviation(features)
    # The largest are the cosines of every image.
    assert largest.elements == 70_000 * 3 * 3
    unit = F.normalize(features.double(), dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    assert affinity.dtype == torch.float32
    torch.testing.assert_close(affinity.double(), cosines.mean(dim=0), rtol=0, atol=1e-5)
    torch.testing.assert_close(deviation.double(), cosines.std(dim=0), rtol=0, atol=1e-5)


def test_a_resumed_run_starts_with_the_size_that_fitted() -> None:
    model = MODELS["full"](load_backbone("test_vit", checkpoint="random", image_size=32))
    recipe = Recipe(epochs=2, batch_size=6, warmup_epochs=0, eval_every=1)
    taken: list[Any] = []
    with memory_for(5, model):
        hooks = Hooks(keep=lambda take: taken.append(take()))
        fit(model, images(12), images(9), recipe, CPU, 0, hooks)
    with memory_for(5, model) as tried:
        fit(model, images(12), images(9), recipe, CPU, 0, replace(hooks, start=taken[0]))
    # Two batches in two parts each, and the evaluation in parts of another size.
    assert tried == [3] * 4 + [5, 4]
