"""The numbers of one training step that change between replays of a captured step, in one buffer on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shipbench.prompting.stochastic_depth import DropFactors

_INDEX_BYTES = torch.long.itemsize


class StepBuffer:
    """The images of one step, and their stochastic-depth factors, at fixed addresses of the device.

    ``indices`` (B,), long, and ``factors``, None if no block drops a branch, are views of one buffer, which ``fill``
    replaces with a single copy. Capture a step that gathers its batch by ``indices`` and computes its loss inside
    ``model.stochastic_depth.reading(buffer.factors)``. Before every replay, draw and fill::

        buffer.fill(indices, model.stochastic_depth.draw(len(indices)))
        graph.replay()

    A stack of R runs has one buffer for R x B images: concatenate the runs' indices, and their factors along the last
    axis. ``of_run`` gives each run its views.
    """

    def __init__(self, images: int, scales: Sequence[float | None], device: torch.device) -> None:
        drops = any(scale is not None for scale in scales)
        shape = (len(scales), 2, images) if drops else (0,)
        head = images * _INDEX_BYTES
        self._bytes = torch.zeros(head + torch.Size(shape).numel() * torch.float32.itemsize, dtype=torch.uint8)
        self._bytes = self._bytes.to(device)
        self.indices = self._bytes[:head].view(torch.long)
        values = self._bytes[head:].view(torch.float32).view(shape)
        self.factors = DropFactors(values, tuple(scales)) if drops else None

    def fill(self, indices: Tensor, values: Tensor | None) -> None:
        """Start to copy ``indices`` (B,) and the factors' ``values`` (L, 2, B), both on the CPU, to the device.

        The copy is queued behind the work that reads the buffer now, and nothing waits for it: it leaves from pinned
        memory of its own, which the allocator reuses only after the copy has ended.
        """
        packed = torch.empty(len(self._bytes), dtype=torch.uint8, pin_memory=self._bytes.is_cuda)
        head = self.indices.numel() * _INDEX_BYTES
        packed[:head].view(torch.long).copy_(indices)
        if self.factors is not None and values is not None:
            packed[head:].view(torch.float32).copy_(values.flatten())
        self._bytes.copy_(packed, non_blocking=True)

    def of_run(self, run: int, runs: int) -> tuple[Tensor, DropFactors | None]:
        """Return the indices and the factors of one of ``runs`` equal parts of the batch, as views."""
        images = len(self.indices) // runs
        part = slice(run * images, (run + 1) * images)
        factors = self.factors
        return self.indices[part], None if factors is None else DropFactors(factors.values[:, :, part], factors.scales)
