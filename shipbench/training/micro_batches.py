"""Process fewer images at a time when a device runs out of memory, with the same result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from shipbench.errors import ShipbenchError
from shipbench.events import DISCARD
from shipbench.hardware.memory import lacks_memory
from shipbench.training.inputs import Inputs
from shipbench.training.prefetch import reading_ahead

Result = TypeVar("Result")


class MicroBatches:
    """The number of images per forward pass.

    ``size`` starts as requested and is halved whenever the device runs out of memory; it never grows again. ``work``
    names the computation in the sentence that ``note`` gets then.
    """

    def __init__(self, size: int, work: str, note: Callable[[str], None] = DISCARD.note) -> None:
        self.size = size
        self.work = work
        self.note = note

    def shrink(self, count: int) -> None:
        """Halve the size after ``count`` images did not fit; raise ``ShipbenchError`` if that was a single image."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        failed = min(self.size, count)
        if failed <= 1:
            raise ShipbenchError(f"out of memory in {self.work}: not even one image at a time fits on the device")
        self.size = (failed + 1) // 2
        self.note(f"out of memory: {self.work} continues with {self.size} images at a time instead of {failed}")


def in_micro_batches(inputs: Inputs, micro_batches: MicroBatches, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Return ``compute(batch)`` for the ``inputs`` in order, joined along the first dimension.

    The result is on the CPU: the device holds that of one batch at a time.
    """
    joined = torch.empty(0)

    def keep(batch: Tensor, indices: Tensor) -> None:
        nonlocal joined
        part = compute(batch)
        first = int(indices[0])
        if not first:
            joined = torch.empty(len(inputs), *part.shape[1:], dtype=part.dtype)
        joined[first : first + len(part)].copy_(part)

    each_micro_batch(inputs, micro_batches, keep)
    return joined


def each_micro_batch(
    inputs: Inputs, micro_batches: MicroBatches, compute: Callable[[Tensor, Tensor], Result]
) -> list[Result]:
    """Return the results of ``compute(batch, indices)`` for the ``inputs`` in order; indices are on the CPU."""
    parts: list[Result] = []
    left = torch.arange(len(inputs))
    while len(left):
        left = left[_while_memory_lasts(inputs, left.split(micro_batches.size), compute, parts) :]
        if len(left):
            # Outside the handler: the exception keeps the tensors of the failed pass alive.
            micro_batches.shrink(len(left))
    return parts


def _while_memory_lasts(
    inputs: Inputs,
    batches: Sequence[Tensor],
    compute: Callable[[Tensor, Tensor], Result],
    parts: list[Result],
) -> int:
    """Append the results of ``batches`` to ``parts`` up to the first that does not fit; return the images done."""
    done = 0
    with reading_ahead(inputs, batches) as reader:
        for indices in batches:
            try:
                parts.append(compute(reader.batch(indices), indices))
            except Exception as error:
                if lacks_memory(error):
                    break
                raise
            done += len(indices)
    return done


class PartOfBatch(TorchFunctionMode):
    """Give images ``start`` to ``start + count`` of a batch the random numbers that they have in the whole batch.

    ``Tensor.bernoulli_`` (stochastic depth), ``F.dropout`` and ``torch.randn_like`` (PVeRA's noise) draw for all
    ``whole`` images, along the first dimension, and keep those of this part. Every part must start from the same state
    of the random generators.
    """

    def __init__(self, start: int, count: int, whole: int) -> None:
        super().__init__()
        self.part = slice(start, start + count)
        self.count = count
        self.whole = whole

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Draw for the whole batch where ``func`` draws for each image."""
        kwargs = kwargs or {}
        per_image = bool(args) and isinstance(args[0], Tensor) and args[0].ndim > 0 and len(args[0]) == self.count
        if per_image and func is torch.Tensor.bernoulli_:
            drawn = args[0].new_empty((self.whole, *args[0].shape[1:])).bernoulli_(*args[1:], **kwargs)
            return args[0].copy_(drawn[self.part])
        if per_image and func is torch.randn_like:
            return torch.randn_like(args[0].new_empty((self.whole, *args[0].shape[1:])), *args[1:], **kwargs)[self.part]
        if per_image and func is F.dropout:
            # Expanded from one image if the batch is, as prompts are: CUDA numbers such elements in another order.
            images, rest = self.whole if args[0].stride(0) else 1, args[0].shape[1:]
            ones = args[0].new_ones((images, *rest)).expand(self.whole, *rest)
            return args[0] * F.dropout(ones, *args[1:], **kwargs)[self.part]
        return func(*args, **kwargs)


def inference_batch(device: torch.device) -> int:
    """Return the number of images per forward pass when nothing is trained.

    Launching kernels costs a GPU's host the same time for any number of images, so more of them keep the GPU busy.
    """
    return 512 if device.type == "cuda" else 128
