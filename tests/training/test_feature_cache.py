"""Features that were kept are used only if every bit is as it was written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from shipbench.runs.features import cached_features

FEATURES = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def test_features_are_computed_once(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cached_features(("a",), lambda: FEATURES)
    assert torch.equal(cached_features(("a",), lambda: FEATURES + 1), FEATURES)
    assert torch.equal(cached_features(("b",), lambda: FEATURES + 1), FEATURES + 1)
    assert capsys.readouterr().err == ""


def test_damage_anywhere_is_noticed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cached_features(("a",), lambda: FEATURES)
    (file,) = (cache / "features").iterdir()
    whole, chance = file.read_bytes(), random.Random(5)
    for place in chance.sample(range(len(whole)), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged[: chance.choice([place, len(whole)])])
        assert torch.equal(cached_features(("a",), lambda: FEATURES.clone()), FEATURES), place
        # What is noticed is said, and the file written again; the rest is the same features in other words.
        assert (file.read_bytes() == whole) == ("damaged" in capsys.readouterr().err), place
        file.write_bytes(whole)
