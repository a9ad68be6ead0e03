"""Loading: correct pixels and labels, decoded once, with damaged caches and concurrent processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from shipbench.data import find, fingerprint, load
from shipbench.data.demo import pictures
from shipbench.data.types import Split
from shipbench.data.vtab import source
from shipbench.errors import InputError, ShipbenchError
from shipbench.tasks import get_task
from tests.data.builders import encode, pixels_of, vtab_tree

DTD = get_task("dtd")


def expected(split: str, count: int, size: int, first_label: int = 0) -> np.ndarray:
    images = [pixels_of("dtd", split, i, first_label + i, (12, 10)) for i in range(count)]
    return np.stack([np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC)) for x in images])


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes, where: object) -> Image.Image:
        raise AssertionError(f"decoded {where}")

    monkeypatch.setattr(source, "decode", fail)


def image_files(cache: Path) -> list[Path]:
    return sorted(file for file in (cache / "images").iterdir() if file.suffix != ".lock")


def test_returns_resized_images_and_labels(dtd: Path) -> None:
    data = load(DTD, image_size=24, root=dtd)
    assert data.task == DTD
    assert data.image_format == "png"
    assert data.fingerprint == fingerprint(DTD, dtd)
    assert np.array_equal(
        data["train"].images, np.concatenate([expected("train800", 8, 24), expected("val200", 2, 24, 8)])
    )
    assert np.array_equal(data["test"].images, expected("test", 6, 24))
    assert data["train"].labels.tolist() == list(range(10))
    assert data["test"].labels.dtype == np.int64


def test_train800_and_val200_are_parts_of_the_1000(dtd: Path) -> None:
    data = load(DTD, image_size=16, root=dtd, splits=("train800", "val200", "train"))
    assert np.array_equal(data["train"].images[:8], data["train800"].images)
    assert np.array_equal(data["train"].images[8:], data["val200"].images)
    assert data["val200"].labels.tolist() == [8, 9]


def test_only_the_requested_splits_are_decoded(dtd: Path) -> None:
    (dtd / "dtd/images/test/000003.png").write_bytes(b"not an image")
    data = load(DTD, image_size=16, root=dtd, splits=("train",))
    assert set(data.splits) == {"train"}
    with pytest.raises(InputError, match=r"000003\.png"):
        load(DTD, image_size=16, root=dtd, splits=("test",))


def test_small_images_are_stored_at_their_native_size(dtd: Path, private_cache: Path) -> None:
    data = load(DTD, image_size=24, root=dtd, splits=("test",))
    assert data["test"].pixels.shape == (6, 10, 12, 3)
    assert np.array_equal(data["test"].images, expected("test", 6, 24))
    (stored,) = (private_cache / "images").glob("*.rgb")
    assert stored.stat().st_size == 6 * 10 * 12 * 3


@pytest.mark.parametrize("odd", [0, 4, 70])
def test_small_images_of_several_sizes_are_stored_resized(tmp_path: Path, private_cache: Path, odd: int) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=["dtd"], n_test=72)
    file = root / f"dtd/images/test/{odd:06d}.png"
    file.write_bytes(encode(np.full((9, 12, 3), 7, np.uint8)))
    data = load(DTD, image_size=24, root=root, splits=("test",))
    assert data["test"].pixels.shape == (72, 24, 24, 3)
    assert (data["test"].images[odd] == 7).all()
    others = np.arange(72) != odd
    images = [pixels_of("dtd", "test", i, i % 47, (12, 10)) for i in range(72)]
    resized = [np.asarray(Image.fromarray(x).resize((24, 24), Image.Resampling.BICUBIC)) for x in images]
    assert np.array_equal(data["test"].images[others], np.stack(resized)[others])


def test_tasks_share_the_pixels_of_images_that_they_share(
    tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=["clevr_count", "clevr_dist"])
    shutil.rmtree(root / "clevr_dist/images")
    shutil.copytree(root / "clevr_count/images", root / "clevr_dist/images")
    count = load(get_task("clevr_count"), image_size=24, root=root)
    forbid_decoding(monkeypatch)
    distance = load(get_task("clevr_dist"), image_size=24, root=root)
    assert distance.fingerprint != count.fingerprint
    for split in ("train", "test"):
        assert np.array_equal(distance[split].images, count[split].images)
    assert count["train"].labels.tolist() == [index % 8 for index in range(10)]
    assert distance["train"].labels.tolist() == [index % 6 for index in range(10)]
    assert len(list((private_cache / "images").glob("*.rgb"))) == 2


def test_images_are_read_only_and_mapped(dtd: Path) -> None:
    images = load(DTD, image_size=10, root=dtd)["test"].images
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


def test_the_format_of_a_jpeg_copy_is_jpeg(tmp_path: Path, private_cache: Path) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=["dtd"], image_format="jpeg")
    assert load(DTD, image_size=16, root=root).image_format == "jpeg"


def test_one_jpeg_makes_it_a_jpeg_copy(dtd: Path) -> None:
    (dtd / "dtd/images/test/000001.png").write_bytes(encode(np.zeros((8, 8, 3), np.uint8), "jpeg"))
    assert load(DTD, image_size=16, root=dtd).image_format == "jpeg"


def test_the_second_load_decodes_nothing(dtd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(DTD, image_size=16, root=dtd)
    forbid_decoding(monkeypatch)
    again = load(DTD, image_size=16, root=dtd)
    assert np.array_equal(first["test"].images, again["test"].images)
    with pytest.raises(AssertionError, match="decoded"):
        load(DTD, image_size=17, root=dtd)


def test_a_changed_copy_is_decoded_again(dtd: Path) -> None:
    before = np.array(load(DTD, image_size=16, root=dtd)["test"].images)
    (dtd / "dtd/images/test/000000.png").write_bytes(encode(np.full((10, 12, 3), 77, np.uint8)))
    after = load(DTD, image_size=16, root=dtd)["test"].images
    assert (after[0] == 77).all()
    assert np.array_equal(before[1:], after[1:])


@pytest.mark.parametrize("kind", ["rgb", "journal"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda file: os.truncate(file, file.stat().st_size - 1),
        lambda file: os.truncate(file, 40),
        lambda file: os.truncate(file, 0),
        lambda file: file.write_bytes(file.read_bytes() + b"x"),
        lambda file: file.write_bytes(b"\0" * file.stat().st_size),
        lambda file: file.unlink(),
        lambda file: np.save(file, np.zeros((3, 3), np.uint8)),
        lambda file: np.save(file, np.zeros(6, np.float32)),
    ],
)
def test_a_damaged_cache_is_rebuilt(dtd: Path, private_cache: Path, kind: str, damage: object) -> None:
    good = np.array(load(DTD, image_size=16, root=dtd, splits=("test",))["test"].images)
    (file,) = (private_cache / "images").glob(f"*.{kind}")
    whole = file.read_bytes()
    damage(file)  # type: ignore[operator]
    data = load(DTD, image_size=16, root=dtd, splits=("test",))
    assert np.array_equal(data["test"].images, good)
    assert data["test"].labels.tolist() == list(range(6))
    assert file.read_bytes() == whole


def test_a_truncated_image_leaves_no_cache_behind(dtd: Path, private_cache: Path) -> None:
    image = dtd / "dtd/images/train800/000005.png"
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(InputError, match=r"images/train800/000005\.png cannot be decoded"):
        load(DTD, image_size=16, root=dtd)
    assert not image_files(private_cache)
    assert not list((private_cache / "images").glob("*.part"))


def test_an_unwritable_cache_is_named(dtd: Path, private_cache: Path) -> None:
    private_cache.mkdir()
    (private_cache / "images").mkdir()
    key = find(DTD, dtd, ("test",)).key("test", 16)
    (private_cache / "images" / f"{key}.rgb").mkdir()
    with pytest.raises(ShipbenchError, match="set SHIPBENCH_CACHE"):
        load(DTD, image_size=16, root=dtd, splits=("test",))


def test_another_version_of_pillow_decodes_again(dtd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(DTD, image_size=16, root=dtd)
    forbid_decoding(monkeypatch)
    load(DTD, image_size=16, root=dtd)
    monkeypatch.setattr(PIL, "__version__", "0.1")
    with pytest.raises(AssertionError, match="decoded"):
        load(DTD, image_size=16, root=dtd)


def test_a_full_disk_is_refused_before_an_image_is_decoded(
    dtd: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 16 * 12 * 10 * 3
    monkeypatch.setattr(
        "shipbench.data.image_cache.shutil.disk_usage", lambda _: types.SimpleNamespace(free=needed - 1)
    )
    with pytest.raises(InputError, match=rf"{private_cache}/images, where .* free; set SHIPBENCH_CACHE"):
        load(DTD, image_size=24, root=dtd)
    assert image_files(private_cache) == []
    monkeypatch.undo()
    monkeypatch.setenv("SHIPBENCH_CACHE", str(private_cache))
    monkeypatch.setattr("shipbench.data.image_cache.shutil.disk_usage", lambda _: types.SimpleNamespace(free=needed))
    load(DTD, image_size=24, root=dtd)
    monkeypatch.setattr("shipbench.data.image_cache.shutil.disk_usage", lambda _: types.SimpleNamespace(free=0))
    load(DTD, image_size=24, root=dtd)


def test_the_error_for_a_missing_split_file_names_the_command_to_check_the_copy(dtd: Path) -> None:
    (dtd / "dtd/val200.txt").unlink()
    with pytest.raises(InputError, match=r"val200\.txt is missing; .*: shipbench data verify ") as caught:
        fingerprint(DTD, dtd)
    assert str(caught.value).endswith(f" {dtd}")


def test_jobs_do_not_change_the_result(dtd: Path, private_cache: Path) -> None:
    first = np.array(load(DTD, image_size=16, root=dtd, jobs=1)["train"].images)
    for file in image_files(private_cache):
        file.unlink()
    assert np.array_equal(load(DTD, image_size=16, root=dtd, jobs=3)["train"].images, first)


def test_more_images_than_one_chunk_keep_their_order(tmp_path: Path, private_cache: Path) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=["dtd"], n_test=100, size=(4, 4))
    images = load(DTD, image_size=4, root=root, jobs=4)["test"].images
    for index in (0, 31, 32, 63, 64, 99):
        assert np.array_equal(images[index], pixels_of("dtd", "test", index, index % 47, (4, 4)))


_CHILD = """
import hashlib, sys
from pathlib import Path
from shipbench.data import load
from shipbench.tasks import get_task
data = load(get_task("dtd"), image_size=64, root=Path(sys.argv[1]), jobs=1)
print(hashlib.sha256(data["train"].images.tobytes() + data["test"].images.tobytes()).hexdigest())
"""


def test_two_processes_share_one_cache(tmp_path: Path, private_cache: Path) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=["dtd"], n_train=100, n_test=100, size=(30, 20))
    command = [sys.executable, "-c", _CHILD, str(root)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(2)]
    output = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], output
    data = load(DTD, image_size=64, root=root)
    digest = hashlib.sha256(data["train"].images.tobytes() + data["test"].images.tobytes()).hexdigest()
    assert {out.strip() for out, _ in output} == {digest}
    decoded = [line for _, err in output for line in err.splitlines() if line.startswith("decoding")]
    assert sorted(decoded) == ["decoding dtd test (100)", "decoding dtd train (100)"]
    assert not list((private_cache / "images").glob("*.part"))


def test_demo_tasks_are_resized_from_native_pictures(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task("demo-tiny")
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)

    def rendered(task: object, split: str) -> Split:
        return Split(images, np.arange(5) % 4)

    monkeypatch.setattr(pictures, "fingerprint", lambda task: "f" * 64)
    monkeypatch.setattr(pictures, "content", lambda task, split: "c" * 64)
    monkeypatch.setattr(pictures, "native", rendered)
    for _ in range(2):
        data = load(task, image_size=56, root=None, splits=("test",))
        assert data.image_format == "array"
        assert data.fingerprint == fingerprint(task, None) == "f" * 64
        resized = np.asarray(Image.fromarray(images[2]).resize((56, 56), Image.Resampling.BICUBIC))
        assert np.array_equal(data["test"].images[2], resized)
        assert data["test"].labels.tolist() == [0, 1, 2, 3, 0]
