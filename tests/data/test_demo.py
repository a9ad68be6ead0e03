"""The pictures of the demo suite: splits, fingerprints, and the cache they are kept in."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shipbench.data.demo import pictures
from shipbench.data.demo.generators import PICTURE_SETS, PictureSet, picture_set_of
from shipbench.data.demo.rendering import clevr, dsprites
from shipbench.data.demo.types import Pictures
from shipbench.errors import InputError, ShipbenchError
from shipbench.tasks.catalogue import DEMO, DEMO_TINY, Task
from shipbench.tasks.registry import get_task

TINY = replace(get_task("demo-tiny"), n_train=40, n_test=20)
COUNT = replace(get_task("clevr-count"), n_train=8, n_test=4)
DIST = replace(get_task("clevr-dist"), n_train=8, n_test=4)

pytestmark = pytest.mark.usefixtures("private_cache")


def files(cache: Path, ending: str) -> list[Path]:
    return sorted((cache / "demo").glob(f"*{ending}"))


def refuse_to_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object) -> None:
        raise AssertionError("the pictures were drawn again")

    monkeypatch.setattr(dsprites, "sample", draw)
    monkeypatch.setattr(clevr, "draw_set", draw)


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1000] ^= 255
    file.write_bytes(content)


def test_demo_tiny_matches_the_catalogue() -> None:
    task = get_task("demo-tiny")
    train, test = pictures.native(task, "train"), pictures.native(task, "test")
    assert (len(train), len(test)) == (400, 200)
    assert train.images.shape == (400, 64, 64, 3)
    assert train.labels.dtype == np.int64
    assert np.bincount(train.labels).tolist() == [100] * 4
    assert np.bincount(test.labels).tolist() == [50] * 4
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


def test_train_is_train800_followed_by_val200() -> None:
    whole, fit, held = (pictures.native(TINY, split) for split in ("train", "train800", "val200"))
    assert (len(fit), len(held)) == (32, 8)
    assert np.array_equal(whole.images, np.concatenate([fit.images, held.images]))
    assert np.array_equal(whole.labels, np.concatenate([fit.labels, held.labels]))


def test_a_thousand_images_divide_into_800_and_200() -> None:
    task = replace(TINY, n_train=1000)
    assert [len(pictures.native(task, split)) for split in ("train800", "val200", "train")] == [800, 200, 1000]


def test_images_are_memory_mapped_and_read_only() -> None:
    images = pictures.native(TINY, "test").images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0, 0, 0, 0] = 1


def test_pictures_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = pictures.fingerprint(TINY)
    refuse_to_draw(monkeypatch)
    assert pictures.fingerprint(TINY) == before
    assert len(pictures.native(TINY, "train")) == 40


def test_the_fingerprint_does_not_depend_on_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pictures.fingerprint(TINY)
    monkeypatch.setenv("SHIPBENCH_CACHE", str(tmp_path / "another"))
    assert pictures.fingerprint(TINY) == before
    assert len(files(tmp_path / "another", ".npy")) == 2


def test_the_fingerprint_changes_with_any_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, first = pictures.fingerprint(TINY), pictures.native(TINY, "train").images
    monkeypatch.setenv("SHIPBENCH_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(dsprites, "HALF_WIDTH", 11.05)
    assert pictures.fingerprint(TINY) != before
    assert 0 < (pictures.native(TINY, "train").images != first).mean() < 0.01


@pytest.mark.parametrize("damage", [flip_a_byte, lambda file: file.write_bytes(file.read_bytes()[:-7]), Path.unlink])
@pytest.mark.parametrize("ending", [".images.npy", ".labels.npy"])
def test_damaged_pictures_are_drawn_again(private_cache: Path, ending: str, damage: object) -> None:
    task = replace(TINY, n_test=160)
    before = pictures.fingerprint(task)
    images = pictures.native(task, "train").images.copy()
    (file,) = files(private_cache, ending)
    damage(file)
    assert np.array_equal(pictures.native(task, "train").images, images)
    assert pictures.fingerprint(task) == before
    assert len(files(private_cache, ".npy")) == 2


def test_two_processes_may_draw_at_once(private_cache: Path) -> None:
    imports = "from shipbench.data.demo import pictures; from shipbench.tasks.catalogue import Draw, Task"
    code = f"{imports}; print(pictures.fingerprint({TINY!r}))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate()[0].strip() for process in running]
    assert printed == [pictures.fingerprint(TINY)] * 2
    assert len(files(private_cache, ".npy")) == 2
    assert not list((private_cache / "demo").glob("*.part"))


def test_count_and_distance_share_scenes_and_differ_in_labels(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = pictures.native(COUNT, "train")
    assert pictures.fingerprint(COUNT) != pictures.fingerprint(DIST)
    refuse_to_draw(monkeypatch)
    distance = pictures.native(DIST, "train")
    assert np.array_equal(count.images, distance.images)
    scenes = [clevr.draw(0, index).scene for index in range(8)]
    assert [clevr.labels(scene) for scene in scenes] == list(zip(count.labels, distance.labels, strict=True))
    assert len(files(private_cache, ".npy")) == 2


def test_every_demo_task_is_labelled_by_one_picture_set() -> None:
    names = [name for picture_set in PICTURE_SETS for name in picture_set.tasks]
    assert sorted(names) == sorted(task.name for task in (*DEMO.tasks, *DEMO_TINY.tasks))
    assert len({picture_set.name for picture_set in PICTURE_SETS}) == len(PICTURE_SETS)


@pytest.mark.parametrize("task", [get_task("digits"), get_task("dsprites-loc")])
def test_labels_cover_the_classes_of_the_catalogue(task: Task) -> None:
    for split, size in (("train", task.n_train), ("val200", 200), ("test", task.n_test)):
        labels = pictures.native(task, split).labels
        assert len(labels) == size
        assert set(labels.tolist()) == set(range(task.num_classes))


def test_a_vtab_task_is_refused() -> None:
    with pytest.raises(InputError, match="'dtd' is not part of the demo suite"):
        pictures.fingerprint(get_task("dtd"))


def test_a_full_disk_raises_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(ShipbenchError, match=r"cannot keep pictures in .*No space left.*set SHIPBENCH_CACHE"):
        pictures.native(TINY, "train")


def test_a_new_generator_version_does_not_read_old_pictures(private_cache: Path) -> None:
    tiny = picture_set_of(TINY)
    newer = PictureSet(tiny.name, tiny.version + 1, tiny.tasks, tiny.draw)
    assert newer.key(TINY) != tiny.key(TINY)
    pictures.fingerprint(TINY)
    assert files(private_cache, ".images.npy")[0].name.startswith(tiny.key(TINY) + ".")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((3, 1), np.int64)),
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 1), np.int64)),
        (np.zeros((2, 4, 4), np.uint8), np.zeros((2, 1), np.int64)),
    ],
)
def test_pictures_refuse_wrong_shapes_and_types(images: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        Pictures(images, labels)
