"""A recipe: everything about training that is not the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from shipbench.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """The common recipe, the same for every method unless the method says why not.

    ``lr`` is the peak learning rate; ``weight_decay`` acts on tensors of two or more dimensions only. ``drop_path``
    is stochastic depth, linear over depth. ``eval_every`` epochs the evaluation split is scored as well; 0 means once,
    after the last epoch. ``mean`` and ``std`` override the backbone's own normalisation.
    """

    epochs: int = 100
    batch_size: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    schedule: ScheduleName = "cosine"
    warmup_epochs: int = 10
    drop_path: float = 0.1
    drop_last: bool = True
    eval_every: int = 0
    image_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("lr", "weight_decay", "warmup_epochs", "eval_every"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.drop_path < 1:
            raise InputError(f"drop_path is {self.drop_path}; it must be at least 0 and below 1")
        if self.image_size is not None and self.image_size < 1:
            raise InputError(f"image_size is {self.image_size}; it must be 1 or more pixels")
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"std is {self.std}; its values must be above 0")
        if self.optimizer not in ("adamw", "sgd"):
            raise InputError(f"unknown optimizer {self.optimizer!r}; choose adamw or sgd")
        if self.schedule not in SCHEDULES:
            raise InputError(f"unknown schedule {self.schedule!r}; choose one of {', '.join(SCHEDULES)}")


ScheduleName: TypeAlias = Literal["cosine", "ship", "vpt"]


SCHEDULES: tuple[str, ...] = get_args(ScheduleName)
