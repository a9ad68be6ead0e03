"""A recorder for devices without CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shipbench.errors import ShipbenchError
from shipbench.training.graphs import Recording


class Tapes:
    """Records work as lists of operations: what CUDA graphs do, on a device without them.

    Nothing is faster for it, but it refuses work that a CUDA graph cannot hold, and a replay runs no Python either, so
    a value that the work took from Python is as old as it would be in a CUDA graph.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def warm_up(self, work: Callable[[], object]) -> None:
        """Call ``work`` three times."""
        for _ in range(3):
            work()

    def record(self, work: Callable[[], object]) -> Recording:
        """Run ``work`` and record its operations.

        Raises ``ShipbenchError`` for an operation that draws from another generator than torch's default one, or whose
        result decides what runs next.
        """
        tape = _Tape()
        with tape:
            work()
        return tape


@dataclass(frozen=True)
class _Operation:
    function: Any
    args: Sequence[Any]
    kwargs: dict[str, Any]
    outputs: list[Tensor] = field(default_factory=list)

    def run_again(self) -> None:
        result = self.function(*self.args, **self.kwargs)
        taken = {_address(leaf) for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)}
        for output, value in zip(self.outputs, _tensors(result), strict=True):
            # Views and results in place lie in the memory of an argument, and hold the new values already.
            if _address(output) not in taken:
                output.copy_(value)


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[_Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _refuse_what_no_graph_holds(func, args, kwargs)
        result = func(*args, **kwargs)
        self.operations.append(_Operation(func, args, kwargs, _tensors(result)))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for operation in self.operations:
            operation.run_again()


def _refuse_what_no_graph_holds(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    if _argument("generator", func, args, kwargs) is not None:
        raise ShipbenchError(f"{func} draws from a generator that no recorded step advances")
    by_mask = any(leaf.dtype == torch.bool for leaf in tree_leaves(args[1:]) if isinstance(leaf, Tensor))
    indexes = func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)
    dynamic = torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags
    if by_mask if indexes else dynamic:
        raise ShipbenchError(f"{func} decides by values on the device what runs next, which no recorded step can do")


def _argument(name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return an argument of a call by its name, or its default; None if the operation has no such argument."""
    for position, argument in enumerate(func._schema.arguments):
        if argument.name == name:
            return args[position] if position < len(args) else kwargs.get(name, argument.default_value)
    return None


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
