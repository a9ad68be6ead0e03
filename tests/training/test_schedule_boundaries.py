"""The boundaries of schedules: the last epoch of the warm-up, the first after it, and no warm-up at all."""

from __future__ import annotations

import math

import pytest

from shipbench.recipe import SCHEDULES
from shipbench.training.schedule import learning_rates


def half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


@pytest.mark.parametrize("warmup", [1, 2, 4])
def test_the_full_rate_comes_with_the_first_epoch_after_the_warm_up(warmup: int) -> None:
    epochs, lr = 8, 0.25
    rest = epochs - warmup
    cosine = learning_rates("cosine", lr, epochs, warmup)
    assert cosine[warmup - 1 : warmup + 2] == pytest.approx(
        [lr * warmup / (warmup + 1), lr, lr * half_cosine(1 / rest)], rel=1e-12
    )
    vpt = learning_rates("vpt", lr, epochs, warmup)
    assert vpt[0] == 0
    assert vpt[warmup - 1 : warmup + 2] == pytest.approx(
        [lr * (warmup - 1) / warmup, lr, lr * half_cosine(1 / rest)], rel=1e-12
    )


@pytest.mark.parametrize("warmup", [1, 2, 4])
def test_ships_cosine_starts_one_epoch_later_and_counts_all_epochs(warmup: int) -> None:
    epochs, lr, start, floor = 8, 0.25, 1e-6, 1e-5
    rates = learning_rates("ship", lr, epochs, warmup)
    assert rates[0] == rates[1] == start
    warm = start + (warmup - 1) * (lr - start) / warmup
    later = [floor + (lr - floor) * half_cosine(step / epochs) for step in (warmup, warmup + 1)]
    assert rates[warmup : warmup + 3] == pytest.approx([warm, *later], rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_a_warm_up_the_first_rate_is_the_full_one(schedule: str) -> None:
    assert learning_rates(schedule, 0.25, 4, 0)[0] == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("epochs", [3, 4, 5])
def test_there_is_a_rate_for_every_epoch_also_where_the_warm_up_is_as_long(schedule: str, epochs: int) -> None:
    rates = learning_rates(schedule, 0.25, epochs, 4)
    assert len(rates) == epochs
    assert all(0 <= rate <= 0.25 for rate in rates)
