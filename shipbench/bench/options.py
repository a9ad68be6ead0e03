"""The options of both benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EndToEndOptions:
    """One run of ``method``: so many images to train on and to test on, in batches of ``batch_size``.

    ``epochs`` is what the estimate for the whole benchmark counts with; the run itself trains for two epochs, of which
    the second is timed.
    """

    backbone: str
    checkpoint: str | None = "random"
    image_size: int | None = None
    batch_size: int = 64
    train_images: int = 1000
    test_images: int = 1000
    epochs: int = 100
    precision: str = "auto"
    device: str = "auto"
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchOptions:
    """What is measured: images of ``image_size`` in batches of ``batch_size``, ``repeats`` rounds after a warm-up.

    ``levels`` are the first blocks of the semantic levels that methods with a hierarchy get to see. ``compiled``
    measures every model a second time, compiled by ``torch.compile``.
    """

    backbone: str
    checkpoint: str | None
    image_size: int | None
    batch_size: int = 16
    num_classes: int = 100
    repeats: int = 5
    drop_path: float = 0.1
    levels: tuple[int, ...] = (0, 2, 4, 6, 8, 11)
    prompt_lengths: tuple[int, ...] = (50,)
    compiled: bool = False
