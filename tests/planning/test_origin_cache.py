"""Origins of weights: remembered until anything that decides them changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench.backbones import Origin
from shipbench.planning import origin_cache
from shipbench.planning.origin_cache import remembered_origin
from tests.data.builders import disk_is_full

ORIGIN = Origin("vit", "a" * 64, 14, (0.5, 0.25, 0.125), (1.0, 2.0, 3.0), "w.pth", "ema", "MAE", ("a note",))


class Loads:
    """Stands in for loading a backbone, and counts."""

    count = 0

    def __call__(self) -> Origin:
        self.count += 1
        return ORIGIN


@pytest.fixture
def load() -> Loads:
    return Loads()


@pytest.fixture
def file(tmp_path: Path, cache: Path) -> Path:
    file = tmp_path / "w.pth"
    file.write_bytes(b"weights")
    return file


def test_weights_are_loaded_once(load: Loads, file: Path) -> None:
    assert [remembered_origin("vit", str(file), None, load) for _ in range(2)] == [ORIGIN] * 2
    assert load.count == 1
    remembered_origin("vit", str(file), 64, load)
    remembered_origin("other", str(file), 64, load)
    assert load.count == 3


def test_a_full_cache_disk_only_makes_the_next_plan_load_again(
    load: Loads, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin_cache, "atomic_path", disk_is_full)
    assert [remembered_origin("vit", str(file), None, load) for _ in range(2)] == [ORIGIN] * 2
    assert load.count == 2


def test_without_a_home_folder_weights_of_the_hub_are_loaded_each_time(
    load: Loads, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", refuse)
    assert [remembered_origin("vit", None, None, load) for _ in range(2)] == [ORIGIN] * 2
    assert load.count == 2


def _rewrite(file: Path, _: Path) -> None:
    file.write_bytes(b"changed")


def _replace(file: Path, _: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"weights")
    other.replace(file)


def _damage(_: Path, cache: Path) -> None:
    (entry,) = (cache / "origins").iterdir()
    entry.write_text(entry.read_text().replace("MAE", "MAX"))


def _truncate(_: Path, cache: Path) -> None:
    (entry,) = (cache / "origins").iterdir()
    entry.write_text(json.dumps([]))


@pytest.mark.parametrize("change", [_rewrite, _replace, _damage, _truncate])
def test_a_changed_file_or_entry_is_noticed(
    load: Loads, file: Path, cache: Path, change: Callable[[Path, Path], None]
) -> None:
    remembered_origin("vit", str(file), None, load)
    change(file, cache)
    assert remembered_origin("vit", str(file), None, load) == ORIGIN
    assert load.count == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("git_commit", lambda: "another"),
        ("VERSION", "0.0.1"),
        *(
            ("version", lambda package, changed=changed: "0.1" if package == changed else "1")
            for changed in ("torch", "timm")
        ),
    ],
)
def test_other_code_loads_again(
    load: Loads, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(origin_cache, "version", lambda _: "1")
    remembered_origin("vit", "random", None, load)
    monkeypatch.setattr(origin_cache, name, value)
    remembered_origin("vit", "random", None, load)
    assert load.count == 2


def test_weights_of_the_hub_are_known_by_their_commit(
    load: Loads, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for count in (1, 2):
        remembered_origin("vit", None, None, load)
        assert load.count == count
    commit = tmp_path / "models--timm--vit" / "refs" / "main"
    commit.parent.mkdir(parents=True)
    for text, count in (("one", 3), ("one", 3), ("two", 4)):
        commit.write_text(text)
        remembered_origin("vit", None, None, load)
        assert load.count == count
