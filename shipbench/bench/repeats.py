"""Twenty training steps of every method, taken twice and compared bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from shipbench.bench.options import PartOptions
from shipbench.bench.workloads import Case, cases, with_errors

STEPS = 20
"""The number of steps that are taken twice."""

_STEPS_OF_AN_EPOCH = 4


def compare_repeats(options: PartOptions) -> Iterator[dict[str, Any]]:
    """Yield a row for every method and precision: whether both trainings are ``equal``, and what is ``different``."""
    for case in cases(replace(options, steps=_STEPS_OF_AN_EPOCH)):
        yield case.identity | with_errors(lambda case=case: _compared(_trained(case), _trained(case)))  # type: ignore[misc]


def _trained(case: Case) -> dict[str, Tensor]:
    """Return the losses of the epochs and all weights after ``STEPS`` steps from the same start."""
    work = case.workload(epochs=STEPS // _STEPS_OF_AN_EPOCH)
    fit = work.fit()
    weights = {name: p.detach().cpu() for name, p in work.trained.named_parameters() if p.requires_grad}
    losses = torch.tensor([report.train_loss for report in fit.epochs], dtype=torch.float64)
    confidence = fit.evaluated[-1][1].confidence
    return {"losses": losses, "confidence": confidence, **weights}


def _compared(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Any]:
    different = [name for name, value in first.items() if not torch.equal(value, second[name])]
    return {"steps": STEPS, "equal": not different, "different": different}
