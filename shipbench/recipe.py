"""The training recipe: every training setting that does not belong to a method."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeAlias, get_args

from annotated_types import Ge, Gt, Interval

from shipbench.settings import Settings

ScheduleName: TypeAlias = Literal["cosine", "ship", "vpt", "ssf", "adapter-plus"]
Capture: TypeAlias = Literal["auto", "off"]
SCHEDULES: tuple[str, ...] = get_args(ScheduleName)
_Positive: TypeAlias = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class Recipe(Settings):
    """The common recipe: the same for every method, except where a method's documentation says why it differs.

    A step takes ``batch_size`` images, or all if there are fewer; ``drop_last`` leaves out the smaller batch at the end
    of an epoch. ``optimizer`` is AdamW, or SGD with momentum 0.9. ``lr`` is the peak learning rate; ``schedule`` and
    ``warmup_epochs`` set that of each epoch. ``weight_decay`` applies to tensors of two or more dimensions except a
    backbone's position embeddings and class token, with ``decay_all`` to every trained tensor.
    ``drop_path`` is the rate of stochastic depth at the last block and grows linearly with depth. The evaluation split
    is scored every ``eval_every`` epochs and after the last one; 0 means only after the last. ``image_size`` is in
    pixels; ``mean`` and ``std`` override the normalisation of the backbone. ``data_share`` is the share of each class's
    training images to train on, the same images for every seed; the evaluation split stays whole. With ``capture``
    "auto", training steps and evaluations are recorded as CUDA graphs where that is possible, with "off" never; both
    give the same result, so it is not part of a run's identity.
    """

    epochs: Annotated[int, Ge(1)] = 100
    batch_size: Annotated[int, Ge(1)] = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[float, Ge(0)] = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    decay_all: bool = False
    schedule: ScheduleName = "cosine"
    warmup_epochs: Annotated[int, Ge(0)] = 10
    drop_path: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    drop_last: bool = True
    eval_every: Annotated[int, Ge(0)] = 0
    image_size: Annotated[int, Ge(1)] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[_Positive, _Positive, _Positive] | None = None
    data_share: Annotated[float, Interval(gt=0, le=1)] = 1.0
    capture: Capture = "auto"

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide a result, for the run id."""
        values = asdict(self)
        del values["capture"]
        return values
