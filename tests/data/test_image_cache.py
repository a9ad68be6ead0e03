"""A cached split with a changed bit is decoded again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shipbench.data import load
from shipbench.data.types import Split
from shipbench.tasks import get_task

DTD = get_task("dtd")
DECODING_AGAIN = "the cached images of dtd test are damaged or have no checksum; decoding them again"


def load_test(root: Path) -> Split:
    return load(DTD, image_size=16, root=root, splits=("test",))["test"]


def write_anew(file: Path, content: bytes, seconds: int) -> None:
    """Replace a file's content and set a distinct time, because a file system's clock may be too coarse to do so."""
    file.write_bytes(content)
    os.utime(file, (seconds, seconds))


def with_a_flipped_bit(content: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield copies of the content, each with one random bit flipped."""
    while True:
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        yield bytes(damaged)


@pytest.mark.parametrize("ending", ["images.npy", "labels.npy", "crc32"])
def test_any_flipped_bit_is_noticed(
    dtd: Path, private_cache: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    first = load_test(dtd)
    images, labels = first.images.copy(), first.labels
    (file,) = (private_cache / "images").glob(f"*.{ending}")
    whole = file.read_bytes()
    damaged = with_a_flipped_bit(whole, random.Random(11))
    for seconds in range(1, 16):
        write_anew(file, next(damaged), seconds)
        capsys.readouterr()
        again = load_test(dtd)
        assert DECODING_AGAIN in capsys.readouterr().err
        assert np.array_equal(again.images, images)
        assert np.array_equal(again.labels, labels)
        assert file.read_bytes() == whole


def test_a_cache_without_checksums_is_decoded_again(
    dtd: Path, private_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = load_test(dtd).images.copy()
    (checksums,) = (private_cache / "images").glob("*.crc32")
    checksums.unlink()
    capsys.readouterr()
    assert np.array_equal(load_test(dtd).images, images)
    assert DECODING_AGAIN in capsys.readouterr().err
    assert checksums.exists()


def test_a_sound_cache_is_read_silently(dtd: Path, private_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_test(dtd)
    capsys.readouterr()
    load_test(dtd)
    messages = capsys.readouterr().err
    assert "decoding" not in messages
    assert "damaged" not in messages
