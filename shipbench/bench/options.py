"""The options of both benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class BenchOptions:
    """Options for timing steps: the backbone, the batch, and ``repeats`` timed rounds after one to warm up.

    ``levels`` are the first blocks of the semantic levels for methods with a hierarchy. ``compiled`` also measures
    every model under ``torch.compile``.
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


@dataclass(frozen=True)
class EndToEndOptions:
    """Options for timing a whole run on ``train_images`` and ``test_images``; ``overrides`` are its settings.

    The run trains for two epochs and the second is timed; ``epochs`` only scales the estimate for all of VTAB-1k.
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
