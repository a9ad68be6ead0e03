"""Learning-rate schedules: one rate per epoch."""

from __future__ import annotations

import math

from shipbench.errors import unknown
from shipbench.recipe import SCHEDULES


def learning_rates(schedule: str, lr: float, epochs: int, warmup_epochs: int = 10) -> list[float]:
    """Return the learning rate of every epoch.

    ``cosine`` warms up linearly to ``lr`` over ``warmup_epochs``, then follows half a cosine towards 0. The
    others are the schedules of the authors' codes, quirks included: ``ship`` (and NOAH, Convpass, FacT, RepAdapter),
    ``vpt``, ``ssf`` and ``adapter-plus``. Raises ``InputError`` for other names.
    """
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    rates = {"cosine": _cosine, "ship": _ship, "vpt": _vpt, "ssf": _ssf, "adapter-plus": _adapter_plus}[schedule]
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


def _ssf(epoch: int, lr: float, epochs: int, warmup: int) -> float:
    """Return SSF's rate: timm's cosine, which ends with as many epochs at the floor as there are for the warm-up."""
    start, floor = 1e-7, 1e-8
    if epoch < warmup:
        return start + epoch * (lr - start) / warmup
    length = max(epochs - warmup, 1)
    return floor + (lr - floor) * _half_cosine(min(epoch / length, 1))


def _adapter_plus(epoch: int, lr: float, epochs: int, warmup: int) -> float:
    """Return Adapter+'s rate, which rises from lr / 100 to lr within the warm-up and falls to lr / 1000."""
    if epoch < warmup:
        return lr / 100 + epoch * (lr - lr / 100) / max(warmup - 1, 1)
    floor = lr / 1000
    return floor + (lr - floor) * _half_cosine((epoch - warmup) / max(epochs - warmup, 1))
