"""Backbones that this process has loaded, so that the runs of a grid load theirs once."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path

from timm.models.vision_transformer import VisionTransformer

from shipbench.backbones import load_backbone

# Grids go through their backbones one after the other; each takes its weights' size in main memory.
_MOST_BACKBONES = 2


def copy_of_backbone(name: str, checkpoint: str | None, image_size: int | None, drop_path: float) -> VisionTransformer:
    """Return a copy of a backbone for one run, which may change it; load it unless an earlier run did.

    Arguments and errors are those of ``load_backbone``. A checkpoint file is loaded again once it has changed.
    """
    return copy.deepcopy(_loaded(name, checkpoint, image_size, drop_path, _version(checkpoint)))


@lru_cache(maxsize=_MOST_BACKBONES)
def _loaded(
    name: str, checkpoint: str | None, image_size: int | None, drop_path: float, version: tuple[int, ...] | None
) -> VisionTransformer:
    return load_backbone(name, checkpoint=checkpoint, image_size=image_size, drop_path=drop_path)


def _version(checkpoint: str | None) -> tuple[int, ...] | None:
    """Return numbers that change with a checkpoint file, or None without one."""
    if checkpoint is None or not Path(checkpoint).is_file():
        return None
    status = Path(checkpoint).stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
