"""A seeded choice of test images that a run classifies correctly and wrongly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shipbench.errors import InputError
from shipbench.results.loading import load_predictions
from shipbench.results.store import Store


@dataclass(frozen=True)
class ChosenImage:
    """A test image by its place in the split, with its class and the class that the run predicted."""

    index: int
    label: int
    predicted: int

    @property
    def right(self) -> bool:
        """Whether the run classified it correctly."""
        return self.label == self.predicted


def choose_images(store: Store, run_id: str, each: int, seed: int) -> list[ChosenImage]:
    """Draw up to ``each`` test images that a run classified correctly, then up to ``each`` that it did not.

    Raises ``InputError`` if the predictions of the run are missing.
    """
    frame = load_predictions(store.root, [run_id]).sort_values("index")
    if not len(frame):
        raise InputError(f"run {run_id} has no predictions in {store.root}; name images to explain")
    rows = frame[["index", "label", "predicted"]].to_numpy(dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(rows))
    images = [ChosenImage(*map(int, rows[place])) for place in order]
    right, wrong = ([image for image in images if image.right is outcome] for outcome in (True, False))
    return [*right[:each], *wrong[:each]]
