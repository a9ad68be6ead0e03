"""The operations of a training step on a GPU, counted without one.

The step runs on PyTorch's ``meta`` device, which has shapes but no values, so counting is fast, needs no GPU, and an
operation that reads a value fails. In bf16, the casts of CUDA's autocast are emulated. Counts are of PyTorch's
operations other than views, each of which launches at least one kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shipbench.backbones import input_size_of
from shipbench.backbones.frozen_weights import cast_frozen_weights
from shipbench.bench.candidates import Candidate, candidates, load_bare_backbone, model_of
from shipbench.bench.emulated_autocast import emulated_autocast
from shipbench.bench.options import BenchOptions
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import Method

META = torch.device("meta")
DRAWS = 20
"""Training steps per model, each with another draw of stochastic depth."""

_BASELINE = "vpt-deep"
# Sums by index, which the deterministic mode of a GPU sorts first, in a dozen launches.
_INDEXED_SUMS = ("index_add", "index_put", "scatter_add", "embedding_dense_backward")
_VIEWS = {
    *("view", "_unsafe_view", "_reshape_alias", "expand", "permute", "transpose", "t", "slice", "select", "unsqueeze"),
    *("squeeze", "split", "split_with_sizes", "unbind", "detach", "alias", "as_strided", "lift_fresh"),
    # Memory without content.
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
}


@dataclass(frozen=True)
class StepOperations:
    """Counts for one training step: loss and backward pass of a batch that lies on the device.

    ``sequences`` is the number of different sequences of operations, with their shapes and numbers, over ``DRAWS``
    steps; the other counts are the largest over these steps. ``launches`` are ``forward`` and ``backward`` operations,
    and ``ratio`` is theirs to VPT-deep's, None if it was not counted. ``uploads`` are copies to the device,
    ``weight_casts`` casts of frozen weights, and ``indexed_sums`` operations such as ``index_add``.
    """

    method: str
    prompt_length: int | None
    precision: str
    forward: int
    backward: int
    launches: int
    ratio: float | None
    sequences: int
    uploads: int
    weight_casts: int
    indexed_sums: int


def count_operations(
    methods: Sequence[Method], options: BenchOptions, precision: str, settings: Mapping[str, Mapping[str, Any]]
) -> list[StepOperations]:
    """Count the operations of every method at every prompt length; ``settings`` are overrides by method name.

    Raises ``InputError`` for levels that do not fit the backbone, and for settings that a method refuses.
    """
    compute = ComputeContext(META, precision)
    measured = candidates(methods, options, settings)[1:]
    counted = [(candidate, _count(candidate, options, compute)) for candidate in measured]
    baselines = {c.prompt_length: steps[0].launches for c, steps in counted if c.name == _BASELINE}
    return [_summary(candidate, steps, precision, baselines) for candidate, steps in counted]


class _Step(TorchDispatchMode):
    """Records the operations of one step on the ``meta`` device."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.frozen = {_storage(p) for p in model.parameters() if not p.requires_grad}
        self.operations: list[tuple[Any, ...]] = []
        self.forward = self.uploads = self.weight_casts = self.indexed_sums = 0

    @property
    def launches(self) -> int:
        return len(self.operations)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record ``func`` unless it is a view or computes on the host."""
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs or {}))
        if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in (*leaves, *tree_leaves(result))):
            self._record(func._schema.name.split("::")[1], leaves)
        return result

    def _record(self, name: str, leaves: Sequence[Any]) -> None:
        if name in _VIEWS:
            return
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self.operations.append((name, *map(_description, leaves)))
        self.indexed_sums += name.removesuffix("_").startswith(_INDEXED_SUMS)
        if name in ("_to_copy", "copy_"):
            source = tensors[-1]
            self.uploads += not source.is_meta
            self.weight_casts += source.is_meta and _storage(source) in self.frozen


def _description(leaf: Any) -> Any:
    """Return what a captured step would fix of an argument: the shape and type of a tensor, the value of a number."""
    return (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else repr(leaf)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _count(candidate: Candidate, options: BenchOptions, compute: ComputeContext) -> list[_Step]:
    """Take ``DRAWS`` steps of a candidate's model, as a run builds it."""
    model = model_of(candidate, options, load_bare_backbone(options, compute)).to(META)
    cast_frozen_weights(model, compute)
    size = input_size_of(model.backbone)[0]
    images = torch.empty(options.batch_size, 3, size, size, device=META)
    labels = torch.zeros(options.batch_size, dtype=torch.long, device=META)
    model.train()
    return [_step(model, images, labels, compute, seed) for seed in range(DRAWS)]


def _step(model: nn.Module, images: Tensor, labels: Tensor, compute: ComputeContext, seed: int) -> _Step:
    torch.manual_seed(seed)
    model.zero_grad(set_to_none=True)
    with _Step(model) as step:
        with emulated_autocast(compute.precision == "bf16"):
            loss: Tensor = model.loss(images, labels)  # type: ignore[operator]
        step.forward = step.launches
        loss.backward()
    return step


def _summary(
    candidate: Candidate, steps: Sequence[_Step], precision: str, baselines: Mapping[int | None, int]
) -> StepOperations:
    longest = max(steps, key=lambda step: step.launches)
    baseline = baselines.get(candidate.prompt_length)
    return StepOperations(
        method=candidate.name,
        prompt_length=candidate.prompt_length,
        precision=precision,
        forward=longest.forward,
        backward=longest.launches - longest.forward,
        launches=longest.launches,
        ratio=longest.launches / baseline if baseline else None,
        sequences=len({tuple(step.operations) for step in steps}),
        uploads=max(step.uploads for step in steps),
        weight_casts=max(step.weight_casts for step in steps),
        indexed_sums=max(step.indexed_sums for step in steps),
    )
