"""Snapshots of a training run between two epochs: all state that determines the epochs to come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shipbench.training.history import EpochReport


@dataclass(frozen=True)
class Snapshot:
    """``tensors`` by name (weights, optimiser, random states) and the reports of the completed ``epochs``.

    ``micro_batches`` are the images per forward pass in training and in evaluation; see
    ``shipbench.training.micro_batches``.
    """

    tensors: Mapping[str, Tensor]
    epochs: tuple[EpochReport, ...]
    micro_batches: tuple[int, int]


def weights_to_keep(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state without the frozen parameters of its ``backbone``, which are loaded with it.

    Without an attribute of this name, they are all of the model's frozen parameters. A tensor that several modules
    share has the first of its names alone.
    """
    backbone = getattr(model, "backbone", None)
    loaded = backbone if isinstance(backbone, nn.Module) else model
    ids = {id(parameter) for parameter in loaded.parameters() if not parameter.requires_grad}
    frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False) if id(parameter) in ids}
    kept = {name: value.detach() for name, value in model.state_dict().items() if name not in frozen}
    first = {_place(value): name for name, value in reversed(kept.items())}
    return {name: value for name, value in kept.items() if not value.numel() or first[_place(value)] == name}


def _place(value: Tensor) -> tuple[int, torch.Size]:
    return value.data_ptr(), value.shape


def trains_whole_backbone(model: nn.Module) -> bool:
    """Return whether a model has a backbone without a frozen parameter, so that its weights are a whole model."""
    backbone = [p.requires_grad for name, p in model.named_parameters() if name.startswith("backbone.")]
    return bool(backbone) and all(backbone)


def copied_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, order: torch.Generator, device: torch.device
) -> dict[str, Tensor]:
    """Return copies, on the CPU, of all tensors that ``restore`` needs."""
    tensors = {f"model.{name}": value for name, value in weights_to_keep(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items() if value is not None}
    tensors |= {f"random.{name}": value for name, value in random_states(device).items()}
    tensors["order"] = order.get_state()
    return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}


def restore(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    device: torch.device,
) -> None:
    """Restore a model, its optimiser and all random generators to a ``copied_state``."""
    model.load_state_dict({**model.state_dict(), **_below("model.", tensors)})
    states: dict[int, dict[str, Any]] = {}
    for name, value in _below("optimizer.", tensors).items():
        index, _, key = name.partition(".")
        # The optimiser keeps tensors of its device as they are, and would change those of the snapshot.
        states.setdefault(int(index), {})[key] = value.clone()
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    order.set_state(tensors["order"])
    set_random_states(_below("random.", tensors), device)


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's global generators: the CPU's, and the device's if it is a GPU."""
    # A GPU's generator is a seed and a counter on the host, so reading them does not wait for the device.
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set torch's global generators to states from ``random_states``."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["mps"])


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
