"""A cached split with a changed bit is decoded again."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shipbench.data import load
from shipbench.data.types import Split
from shipbench.data.vtab import source
from shipbench.tasks import get_task
from tests.data.builders import vtab_tree

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


@pytest.mark.parametrize("ending", ["rgb", "journal"])
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


def test_a_cache_without_journal_is_decoded_again(
    dtd: Path, private_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = load_test(dtd).images.copy()
    (journal,) = (private_cache / "images").glob("*.journal")
    journal.unlink()
    capsys.readouterr()
    assert np.array_equal(load_test(dtd).images, images)
    assert DECODING_AGAIN in capsys.readouterr().err
    assert journal.exists()


def test_a_sound_cache_is_read_silently(dtd: Path, private_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_test(dtd)
    capsys.readouterr()
    load_test(dtd)
    messages = capsys.readouterr().err
    assert "decoding" not in messages
    assert "damaged" not in messages


KILLED = """
import os, sys
from pathlib import Path
from shipbench.data import load
from shipbench.data.vtab import source
from shipbench.tasks import get_task
read = source.read_bytes

def read_until(file):
    if file.name == "000150.png":
        os._exit(9)
    return read(file)

source.read_bytes = read_until
load(get_task("dtd"), image_size=16, root=Path(sys.argv[1]), splits=("test",), jobs=1)
"""


def test_a_killed_decoding_is_continued(
    tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=["dtd"], n_test=160, size=(20, 20))
    assert subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False, capture_output=True).returncode == 9
    names: list[str] = []
    read = source.read_bytes
    monkeypatch.setattr(source, "read_bytes", lambda file: names.append(file.name) or read(file))  # type: ignore[func-returns-value]
    images = load_test(root).images
    assert "continuing to decode dtd test, which an earlier command began" in capsys.readouterr().err
    assert sorted(names) == [f"{index:06d}.png" for index in range(128, 160)]
    whole = np.array(images)
    shutil.rmtree(private_cache / "images")
    assert np.array_equal(load_test(root).images, whole)


def test_only_a_damaged_chunk_is_decoded_again(
    tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=["dtd"], n_test=160, size=(20, 20))
    images = load_test(root).images.copy()
    (file,) = (private_cache / "images").glob("*.rgb")
    whole = file.read_bytes()
    write_anew(file, whole[:70_000] + bytes([whole[70_000] ^ 1]) + whole[70_001:], 1)
    names: list[str] = []
    read = source.read_bytes
    monkeypatch.setattr(source, "read_bytes", lambda file: names.append(file.name) or read(file))  # type: ignore[func-returns-value]
    assert np.array_equal(load_test(root).images, images)
    assert sorted(names) == [f"{index:06d}.png" for index in range(64, 128)]
    assert file.read_bytes() == whole
