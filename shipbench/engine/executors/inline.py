"""Execute runs one after another in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from shipbench.engine.stacked import attempt_stack
from shipbench.events import Listener
from shipbench.planning.stacks import Stack


def execute_inline(stacks: Sequence[Stack], results: Path, emit: Listener, threads: int) -> None:
    """Attempt the stacks in order, with ``threads`` threads."""
    torch.set_num_threads(threads)
    for stack in stacks:
        attempt_stack(stack, results, emit)
