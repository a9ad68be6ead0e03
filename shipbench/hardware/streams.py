"""The streams of a CUDA device besides the one that computes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SideStreams:
    """One stream for copies from the host, and another on which work is recorded as CUDA graphs."""

    copies: torch.cuda.Stream
    recordings: torch.cuda.Stream


def side_streams(device: torch.device) -> SideStreams:
    """Return the side streams of a CUDA device, the same two in the whole process.

    Each further stream would hold on to freed memory and to a cuBLAS workspace of its own.
    """
    import torch

    return _side_streams(torch.cuda.current_device() if device.index is None else device.index)


@cache
def _side_streams(index: int) -> SideStreams:
    import torch

    # Both at once: torch hands out the same 32 streams of a device in turn, so one that is made later may be the first
    # again. A copy on the stream of a recording would be recorded instead of running.
    device = torch.device("cuda", index)
    return SideStreams(torch.cuda.Stream(device), torch.cuda.Stream(device))
