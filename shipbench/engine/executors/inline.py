"""Execute runs one after another in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from shipbench.engine.jobs import threads_per_job
from shipbench.engine.stacked import attempt_stack
from shipbench.events import Listener
from shipbench.planning.plan import PlannedRun


def execute_inline(stacks: Sequence[Sequence[PlannedRun]], results: Path, emit: Listener, *, measured: bool) -> None:
    """Attempt the stacks in order; ``measured`` as in ``attempt_stack``."""
    torch.set_num_threads(threads_per_job(1))
    for stack in stacks:
        attempt_stack(stack, results, emit, measured=measured)
