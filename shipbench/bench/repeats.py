"""Twenty training steps of every method, taken twice, with recorded steps and without, and compared bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from shipbench.bench.options import PartOptions
from shipbench.bench.workloads import Case, cases, with_errors
from shipbench.recipe import Capture

STEPS = 20
"""The number of steps that are taken twice."""

_STEPS_OF_AN_EPOCH = 4
_LARGEST_BATCH = 16


def compare_repeats(options: PartOptions) -> Iterator[dict[str, Any]]:
    """Yield a row for every method and precision: whether both trainings are ``equal``, and what is ``different``.

    If their steps are recorded (``captured``), a third training without recording must be equal, too.
    """
    model = replace(options.model, batch_size=min(options.model.batch_size, _LARGEST_BATCH))
    for case in cases(replace(options, model=model, steps=_STEPS_OF_AN_EPOCH)):
        yield case.identity | with_errors(partial(_compared, case))


def _compared(case: Case) -> dict[str, Any]:
    captured, first = _trained(case, "auto")
    others = {"repeated": _trained(case, "auto")[1]}
    if captured:
        others["not recorded"] = _trained(case, "off")[1]
    different = [
        f"{name}, {kind}"
        for kind, tensors in others.items()
        for name, value in first.items()
        if not torch.equal(value, tensors[name])
    ]
    return {"captured": captured, "steps": STEPS, "equal": not different, "different": different}


def _trained(case: Case, capture: Capture) -> tuple[bool, dict[str, Tensor]]:
    """Return whether steps were recorded, and losses, confidences and weights after ``STEPS`` steps."""
    work = case.workload(STEPS // _STEPS_OF_AN_EPOCH, capture)
    fit = work.fit()
    weights = {name: p.detach().cpu() for name, p in work.trained.named_parameters() if p.requires_grad}
    losses = torch.tensor([report.train_loss for report in fit.epochs], dtype=torch.float64)
    return fit.captured, {"losses": losses, "confidence": fit.evaluated[-1][1].confidence, **weights}
