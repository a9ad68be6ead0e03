"""When a device runs out of memory: fewer images at a time, and the same result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from shipbench.errors import ShipbenchError

if TYPE_CHECKING:
    import torch

Say = Callable[[str], None]


class MicroBatches:
    """How many images go through a model at once.

    ``size`` is what was asked for until the device runs out of memory, then half of it, and so on; it never grows
    again. ``what`` names the work in the line that is said then.
    """

    def __init__(self, size: int, what: str, say: Say) -> None:
        self.size = size
        self.what = what
        self.say = say

    def shrink(self, count: int) -> None:
        """Halve the size after ``count`` images did not fit; raises ``ShipbenchError`` if that was a single one."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        failed = min(self.size, count)
        if failed <= 1:
            raise ShipbenchError(f"out of memory in {self.what}: not even one image at a time fits on the device")
        self.size = (failed + 1) // 2
        self.say(f"out of memory: {self.what} goes on with {self.size} images at a time instead of {failed}")


def in_portions(count: int, portions: MicroBatches, work: Callable[[Tensor], Tensor]) -> Tensor:
    """Return ``work(indices)`` for all indices below ``count``, in order, joined along the first dimension."""
    parts: list[Tensor] = []
    done = 0
    while done < count:
        chunk = torch.arange(done, min(done + portions.size, count))
        # The next try is outside the handler: the error holds on to the tensors of the pass that failed.
        try:
            parts.append(work(chunk))
        except torch.OutOfMemoryError:
            pass
        else:
            done += len(chunk)
            continue
        portions.shrink(len(chunk))
    return torch.cat(parts)


class PartOfBatch(TorchFunctionMode):
    """Gives images ``start`` to ``start + count`` of a batch the random masks that they have in the whole batch.

    ``Tensor.bernoulli_`` (stochastic depth) and ``F.dropout`` draw for ``whole`` images, along the first dimension,
    and keep this part's. Every part must begin with the same state of the random generators.
    """

    def __init__(self, start: int, count: int, whole: int) -> None:
        super().__init__()
        self.part = slice(start, start + count)
        self.count = count
        self.whole = whole

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Draw for the whole batch where ``func`` draws a mask for each image."""
        kwargs = kwargs or {}
        per_image = bool(args) and isinstance(args[0], Tensor) and args[0].ndim > 0 and len(args[0]) == self.count
        if per_image and func is torch.Tensor.bernoulli_:
            drawn = args[0].new_empty((self.whole, *args[0].shape[1:])).bernoulli_(*args[1:], **kwargs)
            return args[0].copy_(drawn[self.part])
        if per_image and func is F.dropout:
            ones = torch.ones_like(args[0][:1]).expand(self.whole, *args[0].shape[1:])
            return args[0] * F.dropout(ones, *args[1:], **kwargs)[self.part]
        return func(*args, **kwargs)


def inference_batch(device: torch.device) -> int:
    """Return how many images go through a model at once when nothing is trained.

    Starting kernels takes a GPU's host the same time for any number of images: more of them keep the GPU busy.
    """
    return 512 if device.type == "cuda" else 128
