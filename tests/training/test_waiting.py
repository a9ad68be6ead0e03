"""A step queues work on the device without waiting: it reads nothing back and waits for no copy.

PyTorch's ``meta`` device stands in for a GPU: it has no values, so reading one is an error.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from shipbench.backbones import load_backbone
from shipbench.hardware.precision import ComputeContext
from shipbench.recipe import Recipe
from shipbench.training.inputs import ImageInputs
from shipbench.training.loop import Hooks, evaluate, fit
from shipbench.training.snapshot import random_states
from shipbench.training.stacked import Member, fit_stack
from tests.training.models import MODELS

META = torch.device("meta")
SIZE = 32


class OnMeta(ComputeContext):
    """Full precision: there is no mixed precision on this device."""

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", enabled=False)


class NoWaiting(TorchDispatchMode):
    """Refuses copies to the device that the caller waits for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        copied = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        result = func(*args, **kwargs)
        if copied and result.device == META and any(a.device != META for a in args if isinstance(a, Tensor)):
            waits = not (kwargs.get("non_blocking") or args[2:] == (True,))
            assert not waits, f"{func} of {tuple(result.shape)} waits for the device"
        return result


def images(count: int, device: torch.device) -> ImageInputs:
    """Images that lie on ``device`` and are computed with on the meta device."""
    pixels = torch.zeros(count, SIZE, SIZE, 3, dtype=torch.uint8, device=device)
    mean, std = (torch.empty(1, 3, 1, 1, device=META) for _ in range(2))
    return ImageInputs(pixels, torch.zeros(count, dtype=torch.long, device=META), mean, std)


def model_on_meta(build: Callable[[Any], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build(load_backbone("test_vit", checkpoint="random", image_size=SIZE, drop_path=0.4)).to(META)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("name", list(MODELS))
def test_no_step_waits_for_the_device(name: str, optimizer: str) -> None:
    model, steps = model_on_meta(MODELS[name]), list[None]()
    recipe = Recipe(epochs=1, batch_size=6, optimizer=optimizer, warmup_epochs=0)  # type: ignore[arg-type]
    hooks = Hooks(check=lambda: steps.append(None))
    train = images(30, META)
    # The mean loss of the epoch is the first value that is read.
    with NoWaiting(), pytest.raises(RuntimeError, match="item"):
        fit(model, train, train, recipe, OnMeta(META, "fp32"), 0, hooks)
    assert len(steps) == 5


@pytest.mark.parametrize("name", ["ship", "vpt-deep"])
def test_no_step_of_a_stack_waits_for_the_device(name: str) -> None:
    recipe, train, steps = Recipe(epochs=1, batch_size=6, warmup_epochs=0), images(30, META), list[None]()
    hooks = Hooks(check=lambda: steps.append(None))
    first = model_on_meta(MODELS[name])
    models = [first, copy.deepcopy(first, {id(first.backbone): first.backbone})]
    members = [Member(model, recipe, 0, random_states(META), hooks) for model in models]
    with NoWaiting(), pytest.raises(RuntimeError, match="item"):
        list(fit_stack(members, train, train, OnMeta(META, "fp32")))
    assert len(steps) == 10


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_no_batch_of_an_evaluation_waits_for_the_device(place: str) -> None:
    model, seen = model_on_meta(MODELS["vpt-deep"]), list[int]()
    model.register_forward_hook(lambda _, inputs, logits: seen.append(len(logits)))
    with NoWaiting(), pytest.raises(RuntimeError, match="item"):
        evaluate(model, images(20, torch.device(place)), OnMeta(META, "fp32"), batch_size=8)
    assert seen == [8, 8, 4]


@pytest.mark.parametrize(("device", "smallest"), [("cpu", 2), ("meta", 6)])
def test_only_the_cpu_leaves_out_images_that_drop_a_branch(device: str, smallest: int) -> None:
    model, seen = model_on_meta(MODELS["vpt-deep"]), set[int]()
    model.to_empty(device=device).train()
    for block in model.backbone.blocks[:-1]:  # type: ignore[union-attr, index]
        block.norm2.register_forward_hook(lambda _, inputs, __: seen.add(len(inputs[0])))
    for seed in range(20):
        torch.manual_seed(seed)
        model(torch.zeros(6, 3, SIZE, SIZE, device=device))
    assert min(seen) == smallest
