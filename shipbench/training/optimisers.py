"""The optimiser of a run."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from shipbench.recipe import Recipe
from shipbench.training.graphs import can_record

_MOMENTUM = 0.9
# Steps that are not recorded are meant: those of a partial batch, and all of them with capture=off.
_WARNING = ".*step\\(\\) is running without CUDA graph capture.*"


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimiser of the trained tensors, with the weight decay that the recipe describes.

    Where steps can be recorded, one kernel updates all tensors and reads the learning rate and the number of the step
    from the device, whether or not the steps are recorded: both are equal bit for bit.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    spared = set() if recipe.decay_all else {p for p in trained if p.ndim < 2} | _never_decayed(model)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p not in spared], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p in spared], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    device = trained[0].device
    if not can_record(device):
        # On the CPU, runs are compared bit for bit with the plain loop.
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=recipe.lr, momentum=_MOMENTUM)
        return torch.optim.AdamW(groups, lr=recipe.lr)
    for group in groups:
        group["lr"] = torch.tensor(recipe.lr, dtype=torch.float32, device=device)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=_MOMENTUM, fused=True)
    warnings.filterwarnings("ignore", message=_WARNING)
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True, capturable=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups; a rate on the device is replaced in place, where recorded steps read it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _never_decayed(model: nn.Module) -> set[nn.Parameter]:
    """Return the position embeddings and class tokens in ``model``, which timm excludes from weight decay."""
    timms: list[Any] = [module for module in model.modules() if hasattr(module, "no_weight_decay")]
    return {p for each in timms for name, p in each.named_parameters() if name in each.no_weight_decay()}
