"""The CLEVR-like picture set; each picture has its own seed, so any number of workers draws the same set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipbench.data.demo.rendering.clevr_render import look, render
from shipbench.data.demo.rendering.clevr_scene import (
    DEPTH_EDGES,
    MAX_COUNT,
    MIN_COUNT,
    Scene,
    count_label,
    distance_label,
    sample_scene,
)
from shipbench.runtime.console import track
from shipbench.runtime.interrupts import children_without_interrupts

SIZE = 112
COUNTS = MAX_COUNT - MIN_COUNT + 1
DISTANCES = len(DEPTH_EDGES) + 1

_CHUNK = 25
_MIN_VISIBLE = 12.0  # pixels; like CLEVR, redraw a scene in which an object is hidden


@dataclass(frozen=True)
class Picture:
    """One picture ``(112, 112, 3)`` and the scene it shows."""

    image: NDArray[np.uint8]
    scene: Scene


def draw(seed: int, index: int) -> Picture:
    """Draw picture ``index`` of the set ``seed``; every object covers at least a thousandth of the picture."""
    rng = np.random.default_rng([seed, index])
    cell = index % (COUNTS * DISTANCES)
    while True:
        scene = sample_scene(rng, MIN_COUNT + cell % COUNTS, cell // COUNTS)
        view = look(scene, SIZE)
        if all(view.visible_pixels(thing) >= _MIN_VISIBLE for thing in range(len(scene.things))):
            return Picture(render(scene, view), scene)


def labels(scene: Scene) -> tuple[int, int]:
    """Return the classes of clevr-count and clevr-dist."""
    return count_label(scene), distance_label(scene)


def draw_set(seed: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw pictures 0 to ``count - 1`` on all cores: images ``(count, 112, 112, 3)``, labels ``(count, 2)``.

    Any 48 consecutive pictures contain every pair of a count and a distance class once.
    """
    import joblib

    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    pool = joblib.Parallel(n_jobs=joblib.cpu_count(), return_as="generator")
    with children_without_interrupts():
        drawn = pool(joblib.delayed(_draw_chunk)(seed, chunk) for chunk in chunks)
    parts = list(track(drawn, f"drawing {count} CLEVR-like scenes, {_CHUNK} at a time", len(chunks)))
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _draw_chunk(seed: int, indices: range) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pictures = [draw(seed, index) for index in indices]
    classes = [labels(picture.scene) for picture in pictures]
    return np.stack([picture.image for picture in pictures]), np.array(classes, np.int64)
