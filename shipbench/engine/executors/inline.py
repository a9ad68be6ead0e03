"""Runs one after another in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from shipbench.engine.jobs import threads_of_each
from shipbench.engine.stacked import Tell, attempt_stack
from shipbench.planning.plan import PlannedRun


def execute_inline(stacks: Sequence[Sequence[PlannedRun]], results: Path, hear: Tell, measured: bool) -> None:
    """Execute every stack in this process, one after another."""
    torch.set_num_threads(threads_of_each(1))
    for stack in stacks:
        attempt_stack(stack, results, hear, measured=measured)
