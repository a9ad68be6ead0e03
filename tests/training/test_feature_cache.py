"""Cached features are used only if no bit has changed."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from shipbench.events import Emitter, Event, Note
from shipbench.runs.features import cached_features

FEATURES = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def test_features_are_computed_once(cache: Path) -> None:
    events: list[Event] = []
    emitter = Emitter("a1", events.append)
    cached_features(("a",), lambda: FEATURES, emitter)
    assert torch.equal(cached_features(("a",), lambda: FEATURES + 1, emitter), FEATURES)
    assert torch.equal(cached_features(("b",), lambda: FEATURES + 1, emitter), FEATURES + 1)
    assert not events


def test_damage_anywhere_is_noticed(cache: Path) -> None:
    events: list[Event] = []
    emitter = Emitter("a1", events.append)
    cached_features(("a",), lambda: FEATURES)
    (file,) = (cache / "features").iterdir()
    whole, chance = file.read_bytes(), random.Random(5)
    for place in chance.sample(range(len(whole)), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged[: chance.choice([place, len(whole)])])
        events.clear()
        assert torch.equal(cached_features(("a",), lambda: FEATURES.clone(), emitter), FEATURES), place
        # Damage that is noticed is noted, and the file rewritten; other changes leave the same features.
        noted = any(isinstance(event, Note) and "damaged" in event.text for event in events)
        assert (file.read_bytes() == whole) == noted, place
        file.write_bytes(whole)
