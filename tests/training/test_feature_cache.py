"""Cached features are used only if no bit of them, and nothing that decides them, has changed."""

from __future__ import annotations

import inspect
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import PIL
import pytest
import timm
import torch

from shipbench.events import Emitter, Event, Note
from shipbench.runs import preparation
from shipbench.runs.features import cached_features
from shipbench.runs.preparation import Prepared, assemble
from tests.runs.test_augmented import prepared

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


@dataclass(frozen=True)
class Pooled:
    tokens: str = "mean"


def with_resolved(ready: Prepared, **changes: Any) -> Prepared:
    return replace(ready, resolved=replace(ready.resolved, **changes))


def test_what_decides_the_features_of_a_readout_is_in_their_key(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = prepared(tmp_path, "none")

    def kept_after(prepared_run: Prepared) -> int:
        assemble(prepared_run)
        return len(list((cache / "features").iterdir()))

    assert [kept_after(ready), kept_after(ready)] == [2, 2]
    # Another name with the same weights may be another architecture, and settings of a plug-in may decide features.
    assert kept_after(with_resolved(ready, backbone="test_vit.other")) == 4
    assert kept_after(with_resolved(ready, settings=Pooled())) == 6
    assert kept_after(with_resolved(ready, settings=Pooled("cls"))) == 8
    with monkeypatch.context() as edited:
        edited.setattr(preparation, "file_sha256", lambda _: "of another version")
        assert kept_after(ready) == 10
    with monkeypatch.context() as interactive:
        interactive.setattr(inspect, "getfile", lambda _: str(tmp_path / "<stdin>"))
        assert kept_after(ready) == 10
        assert assemble(ready).train.batch(torch.arange(2)).shape == (2, 64)


def test_what_decides_features_is_in_their_key(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepared(tmp_path, "none")
    images = ready.task_data
    changed = [
        ready,
        replace(ready, task_data=replace(images, contents={**images.contents, "train": "0" * 64})),
        replace(ready, task_data=replace(images, task=replace(images.task, resize="crop"))),
        replace(ready, task_data=replace(images, task=replace(images.task, augment="flip-crop"))),
        replace(ready, preprocessing=replace(ready.preprocessing, mean=(0.1, 0.2, 0.3))),
        replace(ready, compute=replace(ready.compute, device=torch.device("meta"))),
    ]
    keys = [preparation._feature_key(each, "train") for each in changed]
    keys.append(preparation._feature_key(ready, "test"))
    others = [
        *((package, "__version__", "0.1") for package in (torch, timm, PIL)),
        (preparation, "VERSION", "0.0.1"),
        (preparation, "git_commit", lambda: "another"),
        (preparation, "DRAWING_RULES", -1),
        (preparation, "releases_of", lambda _: {"a-plug-in": "0.1"}),
        (preparation, "sha256_of", lambda _: "of other weights"),
    ]
    for place, name, value in others:
        with monkeypatch.context() as context:
            context.setattr(place, name, value)
            keys.append(preparation._feature_key(ready, "train"))
    assert len(set(map(repr, keys))) == len(changed) + 1 + len(others)
    runs = [replace(ready, compute=replace(ready.compute, precision=precision)) for precision in ("fp32", "bf16")]
    assert len({repr(preparation._readout_key(Pooled, tensors, run)) for tensors in "ab" for run in runs}) == 4
