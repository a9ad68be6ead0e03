"""Learning-rate schedules: one rate per epoch."""

from __future__ import annotations

import math

from shipbench.errors import InputError
from shipbench.recipe import SCHEDULES


def learning_rates(schedule: str, lr: float, epochs: int, warmup_epochs: int = 10) -> list[float]:
    """Return the learning rate of every epoch.

    ``cosine`` warms up linearly to ``lr`` over ``warmup_epochs``, then follows half a cosine towards 0. ``ship`` and
    ``vpt`` are the official schedules of SHIP and VPT, quirks included. Raises ``InputError`` for other names.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"unknown schedule {schedule!r}; choose one of {', '.join(SCHEDULES)}")
    rates = {"cosine": _cosine, "ship": _ship, "vpt": _vpt}[schedule]
    return [rates(epoch, lr, epochs, warmup_epochs) for epoch in range(epochs)]


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _cosine(epoch: int, lr: float, epochs: int, warmup: int) -> float:
    if epoch < warmup:
        return lr * (epoch + 1) / (warmup + 1)
    return lr * _half_cosine((epoch - warmup) / max(epochs - warmup, 1))


def _ship(epoch: int, lr: float, epochs: int, warmup: int) -> float:
    """Return SHIP's rate; its scheduler steps after an epoch with that epoch's number, so epochs 0 and 1 share one."""
    start, floor = 1e-6, 1e-5
    step = max(epoch - 1, 0)
    if step < warmup:
        return start + step * (lr - start) / warmup
    return floor + (lr - floor) * _half_cosine(step / epochs)


def _vpt(epoch: int, lr: float, epochs: int, warmup: int) -> float:
    """Return VPT's rate, which is 0 in the first epoch of the warm-up."""
    if epoch < warmup:
        return lr * epoch / warmup
    return lr * _half_cosine((epoch - warmup) / max(epochs - warmup, 1))
